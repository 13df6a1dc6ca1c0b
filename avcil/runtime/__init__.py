"""What every part runs on: processes, devices, files, machines."""
