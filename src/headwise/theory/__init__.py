"""A map that predicts the effect of attention over a batch: simulation, limits, trained heads."""
