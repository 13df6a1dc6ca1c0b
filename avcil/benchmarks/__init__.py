"""Benchmarks: one TOML card each, with everything that is known about it."""
