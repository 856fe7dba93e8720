"""What pictures of a head need: the attention among some images of a batch, and their path."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from headwise.data.split import balanced_limit
from headwise.fusion.batches import Batch
from headwise.fusion.geometry import tap_names, tap_rows
from headwise.heads import Head

# A label-sorted picture of more can no longer be read.
_IMAGES, _CLASSES = 64, 10


@torch.no_grad()
def pictures(head: Head, batch: Batch) -> dict[str, np.ndarray]:
    """`maps` [L H r r], the weights that each attention head gives among r / 2 images (first views
    sorted by label, then their twins) when the whole batch is there; and `path` [S r 2], the same
    rows at unit length before the first block and after each, all on the two principal axes of
    all of them together. Empty for a head that does not attend."""
    if not head.block_taps:
        return {}
    images = shown_images(batch.labels)
    shown = torch.cat([images, images + len(batch.labels)])
    labels = batch.labels[images].cpu().numpy()
    taps = path_taps(head)
    maps = []
    for weights in head.attention(batch.h, views=2):
        maps.append(among(weights, shown).half().cpu())
        del weights  # or they would be there beside those of the next block
    rows = tap_rows(head, batch.h)
    return {
        "maps": torch.stack(maps).numpy(),
        "map_labels": np.tile(labels, 2),
        "path": principal_path(torch.stack([rows[tap][shown].float() for tap in taps])),
        "path_taps": np.array(taps, dtype=str),
        "path_labels": np.tile(labels, 2),
    }


def path_taps(head: Head) -> tuple[str, ...]:
    """The taps of the blocks, and before them the one that the first block takes."""
    names = tap_names(head)
    return (names[names.index(head.block_taps[0]) - 1], *head.block_taps)


def shown_images(labels: Int64[Tensor, " n"]) -> Int64[Tensor, " k"]:
    """At most 64 images of the ten commonest classes, evenly many of each, sorted by label."""
    classes, counts = labels.unique(return_counts=True)
    common = classes[counts.argsort(descending=True, stable=True)[:_CLASSES]]
    candidates = torch.isin(labels, common).nonzero().flatten()
    kept = candidates[balanced_limit(labels[candidates].cpu(), _IMAGES).to(labels.device)]
    return kept[labels[kept].argsort(stable=True)]


def among(weights: Float[Tensor, "s a t t"], rows: Int64[Tensor, " r"]) -> Float[Tensor, "a r r"]:
    """The weights between these rows of the batch; 0 between rows of different sequences."""
    t = weights.shape[-1]
    sequence, place = rows // t, rows % t
    found = weights[sequence[:, None], :, place[:, None], place]
    return found.permute(2, 0, 1) * (sequence[:, None] == sequence)


def principal_path(rows: Float[Tensor, "S r w"]) -> Float[np.ndarray, "S r 2"]:
    """Each tap's rows at unit length, on the two axes of largest variance of all taps' rows."""
    unit = F.normalize(rows, dim=-1)
    unit = unit - unit.mean((0, 1))
    axes = torch.linalg.svd(unit.flatten(0, 1), full_matrices=False)[2][:2]
    # An axis has no sign of its own: its largest entry is positive.
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    return (unit @ axes.T).cpu().numpy()
