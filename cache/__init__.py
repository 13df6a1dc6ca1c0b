"""Tokens on disk: a Zarr v3 group that is written once, shard by shard, and read fast."""
