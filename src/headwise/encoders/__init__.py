"""Encoders: timm models by name, their stems, and convolutions that are faster on CPUs."""
