"""What is trained: its config, the model, the optimizer, checkpoints, and the encoder that is kept."""
