"""`python -m avcil` is the command `avcil`."""

from avcil.cli import main

main()
