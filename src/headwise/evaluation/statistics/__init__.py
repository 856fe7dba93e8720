"""Measures, intervals and tests."""
