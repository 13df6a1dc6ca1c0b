"""Features from elsewhere into a cache, and a cache into other formats."""
