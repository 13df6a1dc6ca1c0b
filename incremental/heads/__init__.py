"""Trainable heads, from tokens to one feature vector per clip, and growing classifiers."""
