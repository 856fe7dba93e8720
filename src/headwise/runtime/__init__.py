"""The machine: hardware, processes, signals, progress."""
