"""The model: its config, optimizer, checkpoints, and the encoder that is kept."""
