"""Trainable heads: tokens to one feature vector a clip, and the classifiers that grow on it."""
