"""Format 1 of a cache: where bytes lie and what they mean."""
