"""Incremental-learning methods, one a file."""
