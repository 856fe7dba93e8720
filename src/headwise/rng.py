"""Randomness as a function of place.

Every random draw comes from a generator named by where it happens, `generator(seed, "augment", 17)`
for example. Nothing depends on what was drawn before, so resuming needs no generator state, and the
number of ranks or workers changes nothing. Generators live on the CPU, so the draws are the same on
every device.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def seed_at(seed: int, *place: str | int) -> int:
    """A 63-bit seed, a function of `seed` and `place` (SHA-256, so near places are unlike)."""
    digest = hashlib.sha256(repr((seed, *place)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, *place: str | int) -> torch.Generator:
    """A fresh CPU generator for this place."""
    return torch.Generator().manual_seed(seed_at(seed, *place))


@contextlib.contextmanager
def seeded(seed: int, *place: str | int) -> Iterator[None]:
    """Run a block (weight initialisation by libraries) with torch's global generator set for this
    place, and put the global generator back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_at(seed, *place))
        yield
