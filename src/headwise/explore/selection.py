"""Selection: the images that are to be labelled next, with a reason for each."""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from sklearn.cluster import KMeans, MiniBatchKMeans
from torch import Tensor

from headwise import rng
from headwise.errors import UserError, nearest
from headwise.evaluation.probes.logistic import fit_logistic, scores
from headwise.explore.neighbours import neighbours

How = Literal["typical", "diverse", "outlier", "uncertain", "random"]

_TYPICAL_NEIGHBOURS, _OUTLIER_NEIGHBOURS = 20, 10
_MOST_CLUSTERS = 500
_PENALTY = 1e-3


class Chosen(NamedTuple):
    """An image that is to be labelled, in the order of choice."""

    row: int
    score: float
    """What it was chosen by."""
    reason: str


def select(
    h: Float[Tensor, "n p"],
    n: int,
    how: How,
    *,
    labels: Int64[Tensor, " n"] | None = None,
    names: Callable[[int], str] = str,
    seed: int = 0,
) -> list[Chosen]:
    """Choose `n` of the rows without a label.

    `labels`: −1 where there is none; None: there are none. `names`: of rows, for the reasons.

    typical: TypiClust (Hacohen et al., arXiv 2202.02794); diverse: k-center greedy (Sener and
    Savarese, arXiv 1708.00489); outlier: the lowest mean similarity to ten neighbours; uncertain:
    the smallest margin of a linear probe on the labelled rows; random: drawn. By unit vectors.
    Raises `UserError` for an unknown `how`, for more than there are, and where labels are missing.
    """
    known = torch.full((len(h),), -1) if labels is None else labels
    free = (known < 0).nonzero().flatten()
    if how not in get_args(How):
        raise UserError(f"--how cannot be {how!r}; {nearest(how, get_args(How))}")
    if not 1 <= n <= len(free):
        raise UserError(
            f"--n must lie in 1..{len(free):,}, the images that can be chosen; got {n:,}"
        )
    match how:
        case "typical":
            return _typical(F.normalize(h), n, known, seed)
        case "diverse":
            return _diverse(F.normalize(h), n, known, names)
        case "outlier":
            return _outlier(h, n, free)
        case "uncertain":
            return _uncertain(F.normalize(h), n, known, free)
        case "random":
            drawn = torch.randperm(len(free), generator=rng.generator(seed, "select"))[:n]
            return [Chosen(row, 0.0, "drawn at random") for row in free[drawn].tolist()]


def _typical(
    unit: Float[Tensor, "n p"], n: int, known: Int64[Tensor, " n"], seed: int
) -> list[Chosen]:
    """From the largest cluster with the fewest labelled and chosen images, the image with the
    smallest mean distance to its neighbours in the cluster; again and again."""
    cluster = _clusters(unit.numpy(), min(n + int((known >= 0).sum()), _MOST_CLUSTERS), seed)
    members = [np.flatnonzero(cluster == c) for c in range(cluster.max() + 1)]
    covered = np.bincount(cluster[known.numpy() >= 0], minlength=len(members))
    queues: dict[int, list[tuple[float, int]]] = {}
    found: list[Chosen] = []
    left = np.bincount(cluster[known.numpy() < 0], minlength=len(members))
    while len(found) < n:
        c = min(np.flatnonzero(left).tolist(), key=lambda c: (covered[c], -len(members[c])))
        if c not in queues:
            queues[c] = _by_typicality(unit, members[c], known)
        distance, row = queues[c].pop(0)
        covered[c] += 1
        left[c] -= 1
        reason = (
            f"typical of a cluster of {len(members[c]):,} images: mean distance {distance:.3f} to "
            "its neighbours there"
        )
        found.append(Chosen(row, distance, reason))
    return found


def _clusters(unit: np.ndarray, count: int, seed: int) -> Int64[np.ndarray, " n"]:
    """The cluster of each row. As in the paper, mini-batches serve many clusters."""
    kind = KMeans if count <= 50 and len(unit) <= 50_000 else MiniBatchKMeans
    state = rng.seed_at(seed, "clusters") % 2**32
    return kind(count, n_init=1, random_state=state).fit_predict(unit).astype(np.int64)


def _by_typicality(
    unit: Float[Tensor, "n p"], rows: Int64[np.ndarray, " m"], known: Int64[Tensor, " n"]
) -> list[tuple[float, int]]:
    """Mean distance to the neighbours in a cluster, and the row: of its rows without a label."""
    part = unit[rows]
    if len(rows) == 1:
        return [(0.0, int(rows[0]))]
    k = min(_TYPICAL_NEIGHBOURS, len(rows) - 1)
    _, similarities = neighbours(part, part, k, other=True)
    distances = (2 - 2 * similarities).clamp_min(0).sqrt().mean(1).tolist()
    pairs = zip(distances, rows.tolist(), strict=True)
    return sorted(pair for pair in pairs if known[pair[1]] < 0)


def _diverse(
    unit: Float[Tensor, "n p"], n: int, known: Int64[Tensor, " n"], names: Callable[[int], str]
) -> list[Chosen]:
    """The image that is farthest from all that are labelled or chosen; again and again."""
    closest, like = torch.full((len(unit),), -2.0), torch.zeros(len(unit), dtype=torch.long)
    found: list[Chosen] = []
    for row in (known >= 0).nonzero().flatten().tolist():
        _closer(unit, row, closest, like)
    if not (known >= 0).any():
        row = int((unit @ unit.mean(0)).argmax())
        found.append(Chosen(row, 0.0, "the image nearest to the mean of all"))
        _closer(unit, row, closest, like)
    # What cannot be chosen is never the farthest.
    closest[known >= 0] = torch.inf
    closest[[one.row for one in found]] = torch.inf
    while len(found) < n:
        row = int(closest.argmin())
        value, other = float(closest[row]), names(int(like[row]))
        reason = f"far from all before: its most similar one, {other}, has similarity {value:.3f}"
        found.append(Chosen(row, value, reason))
        _closer(unit, row, closest, like)
        closest[row] = torch.inf
    return found


def _closer(unit: Tensor, row: int, closest: Tensor, like: Tensor) -> None:
    """Note where a row is the most similar one so far."""
    values = unit @ unit[row]
    like[values > closest] = row
    torch.maximum(closest, values, out=closest)


def _outlier(h: Float[Tensor, "n p"], n: int, free: Int64[Tensor, " m"]) -> list[Chosen]:
    k = min(_OUTLIER_NEIGHBOURS, len(h) - 1)
    values = outlier_scores(h, k)[free]
    order = values.argsort(descending=True)[:n]
    return [
        Chosen(row, value, f"an outlier: mean similarity {1 - value:.3f} to its {k} neighbours")
        for row, value in zip(free[order].tolist(), values[order].tolist(), strict=True)
    ]


def outlier_scores(h: Float[Tensor, "n p"], k: int = _OUTLIER_NEIGHBOURS) -> Float[Tensor, " n"]:
    """Return the mean cosine distance of each row to its `k` nearest others."""
    if len(h) < 2:
        return torch.zeros(len(h))
    return 1 - neighbours(h, h, min(k, len(h) - 1), other=True)[1].mean(1)


def _uncertain(
    unit: Float[Tensor, "n p"], n: int, known: Int64[Tensor, " n"], free: Int64[Tensor, " m"]
) -> list[Chosen]:
    """By the margin between the two most probable classes of a logistic regression."""
    classes, places = known[known >= 0].unique(return_inverse=True)
    if len(classes) < 2:
        raise UserError(
            "--how uncertain needs labels of at least two classes in the table; got "
            f"{len(classes)}; choose typical images first"
        )
    mean = unit[known >= 0].mean(0)
    model = fit_logistic(
        unit[known >= 0] - mean, places, num_classes=len(classes), penalty=_PENALTY
    )
    best = scores(model, unit[free] - mean).softmax(1).topk(2)
    margins = best.values[:, 0] - best.values[:, 1]
    order = margins.argsort(stable=True)[:n]
    return [
        Chosen(
            int(free[i]),
            float(margins[i]),
            f"the probe leads its first class by {float(margins[i]):.3f} of the probability",
        )
        for i in order.tolist()
    ]
