"""The Python interface: what the commands do, as functions.

They raise `avcil.errors.AvcilError` for everything that the caller can fix. Progress and messages
go to standard error, nothing to standard output.
"""
