"""Benchmarks: a TOML card for each, with everything that is known about it."""
