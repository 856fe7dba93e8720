"""The Deep Fusion lab: whether, where and why a head's attention brings a class together."""
