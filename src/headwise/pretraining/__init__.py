"""Pretraining: the loop, what is watched while it runs, and the recipes."""
