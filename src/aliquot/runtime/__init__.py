"""What every stage needs of the machine: devices, processes, progress."""
