"""The subcommands of `avcil`, one a file: they parse, call the packages and print."""
