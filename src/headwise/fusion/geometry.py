"""The geometry of a batch's rows at `h` and after every layer of a head.

All measures except alignment use only the first views, so that no row has its twin in the set.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from sklearn.metrics import silhouette_score
from torch import Tensor

from headwise.evaluation.protocols.cluster import assign, contingency, k_means
from headwise.evaluation.protocols.knn import nearest_rows
from headwise.evaluation.statistics.geometry import (
    alignment,
    class_separation,
    effective_rank,
    uniformity,
)
from headwise.fusion.affinity import relabelled
from headwise.fusion.batches import EncodedBatch
from headwise.heads import Head

MEASURES = (
    "nn1",
    "within",
    "between",
    "silhouette",
    "rank",
    "alignment",
    "uniformity",
    "cluster_accuracy",
)


def tap_names(head: Head) -> tuple[str, ...]:
    """Return the taps at which geometry is measured: `h`, then every tap of the head."""
    return ("h", *head.tap_names)


@torch.no_grad()
def tap_rows(head: Head, h: Float[Tensor, "m p"]) -> dict[str, Float[Tensor, "m _"]]:
    """Return the rows at `h` and at every tap, for both views of the batch."""
    return {"h": h, **head.taps(h, views=2)}


def head_geometry(head: Head, batch: EncodedBatch, *, seed: int) -> dict[str, np.ndarray]:
    """Return every measure as `[T]` float32, one value per tap."""
    rows = tap_rows(head, batch.h)
    by_tap = [row_geometry(rows[tap], batch.labels, seed=seed) for tap in tap_names(head)]
    return {name: np.array([tap[name] for tap in by_tap], dtype=np.float32) for name in MEASURES}


@torch.no_grad()
def row_geometry(
    rows: Float[Tensor, "m w"], labels: Int64[Tensor, " n"], *, seed: int
) -> dict[str, float]:
    """Return the measures of the rows of one tap: `nn1`, whether the nearest other image by cosine
    has the same label; `within` and `between`, shares of the variance of rows at unit length; the
    mean `silhouette` by cosine distance (NaN if no two images have the same label); effective
    `rank`; `alignment` and `uniformity` of Wang and Isola; and `cluster_accuracy` of k-means under
    the best assignment of clusters to classes."""
    first, twins = rows.float().chunk(2)
    unit = F.normalize(first, dim=1)
    between = class_separation(unit, labels).item()
    return {
        "nn1": same_label_share(nearest_neighbours(first), labels).item(),
        "within": 1 - between,
        "between": between,
        "silhouette": _silhouette(first, labels),
        "rank": effective_rank(first).item(),
        "alignment": alignment(first, twins).item(),
        "uniformity": uniformity(first).item(),
        "cluster_accuracy": _cluster_accuracy(unit, labels, seed),
    }


def nearest_neighbours(first: Float[Tensor, "n w"]) -> Int64[Tensor, " n"]:
    """Return the index of the nearest other row by cosine for each row."""
    blocks = nearest_rows(first, first, 1, leave_one_out=True)
    return torch.cat([index for _, index in blocks])[:, 0]


def same_label_share(
    neighbours: Int64[Tensor, " n"], labels: Int64[Tensor, "*p n"]
) -> Shaped[Tensor, "*p"]:
    """Return the share of rows whose neighbour has the same label, for each labelling."""
    return (labels[..., neighbours] == labels).double().mean(-1)


@torch.no_grad()
def permuted_nn1(
    head: Head, batch: EncodedBatch, permutations: int, *, seed: int
) -> Float[np.ndarray, "T P"]:
    """Return `nn1` at every tap for random permutations of the labels, the same for all taps."""
    labels = relabelled(batch.labels, permutations, seed)[1:]
    rows = tap_rows(head, batch.h)
    neighbours = (nearest_neighbours(rows[tap].chunk(2)[0]) for tap in tap_names(head))
    shares = [same_label_share(index, labels) for index in neighbours]
    return torch.stack(shares).float().cpu().numpy()


def _silhouette(first: Float[Tensor, "n w"], labels: Int64[Tensor, " n"]) -> float:
    if len(labels.unique()) == len(labels):
        return float("nan")
    x, y = first.cpu().numpy(), labels.cpu().numpy()
    return float(silhouette_score(x, y, metric="cosine"))  # type: ignore[arg-type]


def _cluster_accuracy(unit: Float[Tensor, "n w"], labels: Int64[Tensor, " n"], seed: int) -> float:
    classes, y = labels.unique(return_inverse=True)
    clusters = k_means(unit.cpu().numpy(), len(classes), seed)
    table = contingency(clusters, y.cpu().numpy(), (len(classes), len(classes)))
    return float(table[np.arange(len(classes)), assign(table)].sum() / len(y))
