"""What the points of the page can be coloured by."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from sklearn.cluster import MiniBatchKMeans

from headwise import rng
from headwise.explore.table import Table
from headwise.features.given import ABOUT

MOST_NAMES = 40
"""Of a column of text, the most frequent values are told apart; the others share one colour."""
_OTHERS = "(all others)"
_DEFAULT_CLUSTERS = 10
_NOT_SHOWN = {"x", "y"}.union(*ABOUT.values())


@dataclass(frozen=True, kw_only=True)
class Colouring:
    """One entry of the page's list."""

    name: str
    values: Shaped[np.ndarray, " n"]
    """Numbers (NaN: none), or places among `names` (−1: none)."""
    names: tuple[str, ...] | None = None
    """None for numbers."""
    low: float = 0.0
    high: float = 1.0
    """The scale of numbers: 1 % of the rows lie below it, and 1 % above it."""


def colourings(
    table: Table, similar: Float[np.ndarray, "_ k"], *, clusters: int | None, seed: int
) -> list[Colouring]:
    """Label, cluster, split and outlier score, as far as the table has them, then its other columns
    of numbers or of text that repeats. `similar`: to each row's nearest neighbours, falling."""
    found = []
    if table.classes:
        found.append(_of_places("label", table.labels.numpy(), table.classes))
    groups = min(clusters or len(table.classes) or _DEFAULT_CLUSTERS, len(table))
    found.append(_of_places("cluster", _clusters(table, groups, seed), _numbered(groups)))
    if any(table.split):
        found += _of_text("split", table.split)
    if similar.shape[1]:
        found += _of_numbers("outlier score", 1 - similar[:, -1])
    for name, values in table.columns.items():
        if name not in _NOT_SHOWN and len(values) == len(table):
            numbers = values.dtype.kind in "fiub"
            found += _of_numbers(name, values) if numbers else _of_text(name, values)
    return found


def _clusters(table: Table, count: int, seed: int) -> np.ndarray:
    """k-means of `h` of unit length."""
    unit = F.normalize(table.h.float()).numpy()
    state = rng.seed_at(seed, "clusters") % 2**32
    return MiniBatchKMeans(count, n_init=3, batch_size=4096, random_state=state).fit_predict(unit)


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"cluster {i + 1}" for i in range(count))


def _of_numbers(name: str, values: Shaped[np.ndarray, " n"]) -> Iterator[Colouring]:
    numbers = values.astype(np.float32)
    if np.isfinite(numbers).any():
        low, high = np.nanquantile(np.where(np.isfinite(numbers), numbers, np.nan), (0.01, 0.99))
        yield Colouring(name=name, values=numbers, low=float(low), high=float(high))


def _of_text(name: str, values: Shaped[np.ndarray, " n"]) -> Iterator[Colouring]:
    """Nothing for a column in which most values are different, such as a comment."""
    names, codes = np.unique(values.astype(str), return_inverse=True)
    if len(names) <= max(MOST_NAMES, len(values) // 10):
        codes = np.where(names[codes] == "", -1, codes)
        yield _of_places(name, codes, tuple(names.tolist()))


def _of_places(name: str, codes: Shaped[np.ndarray, " n"], names: tuple[str, ...]) -> Colouring:
    """With more than `MOST_NAMES` names, the rarer ones become one."""
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    used = np.flatnonzero(counts)
    if len(used) > MOST_NAMES:
        used = np.sort(np.argsort(-counts, kind="stable")[: MOST_NAMES - 1])
    place = np.full(len(names) + 1, len(used))
    place[used] = np.arange(len(used))
    place[-1] = -1  # where there is no name
    kept = tuple(names[i] for i in used)
    if counts.sum() > counts[used].sum():
        kept = (*kept, _OTHERS)
    return Colouring(name=name, values=place[codes], names=kept)
