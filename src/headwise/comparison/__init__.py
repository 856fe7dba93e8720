"""Comparing heads: the same encoder, images and draws under each."""
