"""The subcommands of `avcil`, one per file: they parse options, call the packages and print."""
