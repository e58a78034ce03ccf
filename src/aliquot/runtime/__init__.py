"""What every stage needs from the machine: devices, processes, progress."""
