"""Attention over a batch as a map: prediction, simulation, limits, trained heads."""
