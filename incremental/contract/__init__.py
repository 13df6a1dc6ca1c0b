"""What every method and head must do: checked by the tests and by `avcil check`."""
