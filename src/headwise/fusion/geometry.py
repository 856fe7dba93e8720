"""What a head does to the rows of a batch: their geometry at `h` and after every layer.

All of it, but for alignment, of first views only, so that no row has its twin beside it.
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
from headwise.fusion.batches import Batch
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
    """Where the geometry is measured: `h`, then every tap of the head."""
    return ("h", *head.tap_names)


@torch.no_grad()
def tap_rows(head: Head, h: Float[Tensor, "m p"]) -> dict[str, Float[Tensor, "m _"]]:
    """The rows at `h` and at every tap, two views of the batch together."""
    return {"h": h, **head.taps(h, views=2)}


def head_geometry(head: Head, batch: Batch, *, seed: int) -> dict[str, np.ndarray]:
    """Every measure at every tap, `[T]` float32 each."""
    rows = tap_rows(head, batch.h)
    found = [row_geometry(rows[tap], batch.labels, seed=seed) for tap in tap_names(head)]
    return {name: np.array([one[name] for one in found], dtype=np.float32) for name in MEASURES}


@torch.no_grad()
def row_geometry(
    rows: Float[Tensor, "m w"], labels: Int64[Tensor, " n"], *, seed: int
) -> dict[str, float]:
    """Of the rows of one tap, in this order: `nn1`, whether the nearest other image by cosine has
    the same label; `within` and `between`, shares of the variance of rows at unit length; the
    mean `silhouette` by cosine distance; effective `rank`; `alignment` and `uniformity` of Wang
    and Isola; `cluster_accuracy` of k-means under the best assignment of clusters to classes. The
    silhouette is NaN where every image is a class."""
    first, twins = rows.float().chunk(2)
    unit = F.normalize(first, dim=1)
    between = class_separation(unit, labels).item()
    return {
        "nn1": right_neighbours(nearest(first), labels).item(),
        "within": 1 - between,
        "between": between,
        "silhouette": _silhouette(first, labels),
        "rank": effective_rank(first).item(),
        "alignment": alignment(first, twins).item(),
        "uniformity": uniformity(first).item(),
        "cluster_accuracy": _cluster_accuracy(unit, labels, seed),
    }


def nearest(first: Float[Tensor, "n w"]) -> Int64[Tensor, " n"]:
    """Of each row the number of the nearest other by cosine."""
    blocks = nearest_rows(first, first, 1, leave_one_out=True)
    return torch.cat([index for _, index in blocks])[:, 0]


def right_neighbours(
    neighbour: Int64[Tensor, " n"], labels: Int64[Tensor, "*p n"]
) -> Shaped[Tensor, "*p"]:
    """The share of rows whose neighbour has their label; for several labellings at once."""
    return (labels[..., neighbour] == labels).double().mean(-1)


@torch.no_grad()
def permuted_nn1(
    head: Head, batch: Batch, permutations: int, *, seed: int
) -> Float[np.ndarray, "T P"]:
    """`nn1` at every tap under random relabellings of the images, the same at all taps."""
    labels = relabelled(batch.labels, permutations, seed)[1:]
    rows = tap_rows(head, batch.h)
    found = [right_neighbours(nearest(rows[tap].chunk(2)[0]), labels) for tap in tap_names(head)]
    return torch.stack(found).float().cpu().numpy()


def _silhouette(first: Float[Tensor, "n w"], labels: Int64[Tensor, " n"]) -> float:
    if len(labels.unique()) == len(labels):
        return float("nan")
    x, y = first.cpu().numpy(), labels.cpu().numpy()
    return float(silhouette_score(x, y, metric="cosine"))  # type: ignore[arg-type]


def _cluster_accuracy(unit: Float[Tensor, "n w"], labels: Int64[Tensor, " n"], seed: int) -> float:
    classes, y = labels.unique(return_inverse=True)
    found = k_means(unit.cpu().numpy(), len(classes), seed)
    table = contingency(found, y.cpu().numpy(), (len(classes), len(classes)))
    return float(table[np.arange(len(classes)), assign(table)].sum() / len(y))
