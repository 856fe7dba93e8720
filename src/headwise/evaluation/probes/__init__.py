"""Classifiers on frozen features, and training for the protocols that move the encoder."""
