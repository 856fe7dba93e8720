"""From run directories to numbers."""
