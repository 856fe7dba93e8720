"""What depends on the machine: hardware, processes, signals, progress."""
