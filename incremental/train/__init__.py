"""One run: the tasks in order."""
