"""Curves, matrices and the attention maps."""
