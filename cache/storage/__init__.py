"""Access to the files of a cache, in a local folder or a bucket."""
