"""The run directory: what every command reads and writes."""
