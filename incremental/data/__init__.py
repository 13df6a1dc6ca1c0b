"""Clips, tasks and exemplars."""
