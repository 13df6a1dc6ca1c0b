"""Tokens to accuracy: tasks, heads, methods, the training loop, reports."""
