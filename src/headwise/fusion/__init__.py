"""The Deep Fusion lab measures whether, where and why a head's attention joins a class."""
