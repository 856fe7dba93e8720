"""Randomness as a function of place.

Every random draw has a generator of its own, made for its place: `generator(seed, "augment", 17)`.
A draw does not depend on earlier ones, so resuming needs no generator state, and the number of
ranks or workers changes nothing. Generators are on the CPU: every device gets the same draws.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def seed_at(seed: int, *place: str | int) -> int:
    """Derive a 63-bit seed from `seed` and `place`. SHA-256 makes similar places unrelated."""
    digest = hashlib.sha256(repr((seed, *place)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, *place: str | int) -> torch.Generator:
    """Return a fresh CPU generator for this place."""
    return torch.Generator().manual_seed(seed_at(seed, *place))


@contextlib.contextmanager
def seeded(seed: int, *place: str | int) -> Iterator[None]:
    """Seed torch's global generator for this place within the block, and restore it afterwards.
    (Libraries that initialise weights use the global generator.)"""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_at(seed, *place))
        yield
