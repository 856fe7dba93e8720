"""The data of a head's pictures: the attention between some images of a batch, and their path."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from headwise.data.split import balanced_limit
from headwise.fusion.batches import EncodedBatch
from headwise.fusion.geometry import tap_names, tap_rows
from headwise.heads import Head

# A picture of more images or classes is not legible.
_IMAGES, _CLASSES = 64, 10


@torch.no_grad()
def pictures(head: Head, batch: EncodedBatch) -> dict[str, np.ndarray]:
    """Return `maps` and `path`, or nothing for a head without attention.

    `maps` [L H r r] holds the weights of each attention head between r / 2 images of the batch
    (first views sorted by label, then their twins). `path` [S r 2] holds the same rows at unit
    length, before the first block and after each, on the two principal axes of all of them.
    """
    if not head.block_taps:
        return {}
    images = pictured_images(batch.labels)
    pictured = torch.cat([images, images + len(batch.labels)])
    labels = batch.labels[images].cpu().numpy()
    taps = path_taps(head)
    maps = []
    for weights in head.attention(batch.h, views=2):
        maps.append(weights_between(weights, pictured).half().cpu())
        del weights  # frees their memory before the next block computes its own
    rows = tap_rows(head, batch.h)
    return {
        "maps": torch.stack(maps).numpy(),
        "map_labels": np.tile(labels, 2),
        "path": principal_path(torch.stack([rows[tap][pictured].float() for tap in taps])),
        "path_taps": np.array(taps, dtype=str),
        "path_labels": np.tile(labels, 2),
    }


def path_taps(head: Head) -> tuple[str, ...]:
    """Return the tap before the first block, and the taps of all blocks."""
    names = tap_names(head)
    return (names[names.index(head.block_taps[0]) - 1], *head.block_taps)


def pictured_images(labels: Int64[Tensor, " n"]) -> Int64[Tensor, " k"]:
    """Return at most 64 images, sorted by label, balanced over the ten most common classes."""
    classes, counts = labels.unique(return_counts=True)
    common = classes[counts.argsort(descending=True, stable=True)[:_CLASSES]]
    candidates = torch.isin(labels, common).nonzero().flatten()
    index = candidates[balanced_limit(labels[candidates].cpu(), _IMAGES).to(labels.device)]
    return index[labels[index].argsort(stable=True)]


def weights_between(
    weights: Float[Tensor, "s a t t"], rows: Int64[Tensor, " r"]
) -> Float[Tensor, "a r r"]:
    """Return the weights between these rows of the batch, 0 between rows of different sequences."""
    t = weights.shape[-1]
    sequence, position = rows // t, rows % t
    between = weights[sequence[:, None], :, position[:, None], position]
    return between.permute(2, 0, 1) * (sequence[:, None] == sequence)


def principal_path(rows: Float[Tensor, "S r w"]) -> Float[np.ndarray, "S r 2"]:
    """Return each tap's rows at unit length, on the two principal axes of all taps' rows."""
    unit = F.normalize(rows, dim=-1)
    unit = unit - unit.mean((0, 1))
    axes = torch.linalg.svd(unit.flatten(0, 1), full_matrices=False)[2][:2]
    # The sign of an axis is arbitrary, so its largest entry is made positive.
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    return (unit @ axes.T).cpu().numpy()
