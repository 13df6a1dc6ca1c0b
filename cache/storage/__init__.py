"""Where a cache's files lie: a local folder or a bucket."""
