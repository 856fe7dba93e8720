"""Explore: search a table of features, find duplicates in it, choose images from it."""
