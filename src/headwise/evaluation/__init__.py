"""Judging a representation: the papers' protocols, at every tap.

Import from the modules: some need libraries that take seconds to import, and pretraining uses only
the k-NN probe.
"""
