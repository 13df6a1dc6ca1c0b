"""Format 1 of a cache: its files and their content."""
