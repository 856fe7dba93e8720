"""Leakage: whether a head that looks at the whole batch takes the label from there.

`z` of such a head depends on the batch-mates. In batches of one class they give the class away, and
a probe of `z` reads what the image itself need not show. So `z` is probed three times: in shuffled
batches (the headline number), in batches of one class each, and alone.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy import stats
from torch import Tensor

from headwise import rng
from headwise.evaluation.extracted import ExtractedRun, SplitFeatures, tables
from headwise.evaluation.protocols.description import Description
from headwise.evaluation.protocols.knn import knn, knn_self
from headwise.features.extract import Features
from headwise.heads import Head
from headwise.model.extraction import ExtractConfig
from headwise.runs.results import Value
from headwise.runtime import hardware

LEAKAGE = Description(
    title="Leakage from the batch",
    definition=(
        "The z of a head that attends over the batch depends on which images share it. It is read "
        "in shuffled batches, in batches of one class, and one by one. If batches of one class "
        "score higher, z takes the label from its batch-mates; h never can."
    ),
    labels={
        "leakage": "sorted − shuffled",
        "leakage_self": "sorted − shuffled, 1-NN among test images",
        "leakage_knn": "kNN",
        "leakage_knn_self": "1-NN among test images",
    },
    section="leakage",
)

_PARTS = 5
"""A class is sorted into about so many batches or more, so that the interval has some to go by."""

Order = Literal["shuffled", "sorted", "singleton"]
"""Which images share a batch: any, those of one class, none."""


def leakage(trained: ExtractedRun, *, seed: int) -> Iterator[Value]:
    """`leakage_knn/ORDER` and `leakage_knn_self/ORDER` for every order; `leakage/z` and
    `leakage_self/z`: how much better either reads `z` in batches of one class than in shuffled
    ones, with a verdict in words."""
    head, classes = trained.model.head, len(trained.images.train.classes)
    if not head.batch_aware:
        verdict = "this head does not look at the batch: nothing can leak"
        n = len(trained.test_images)
        yield Value(
            protocol="leakage",
            measure="leakage",
            where="z",
            unit="share",
            value=0.0,
            n=n,
            verdict=verdict,
        )
        return
    h = (
        trained.tables.get("h")
        or tables(trained.model, trained.images, ["h"], trained.extraction)["h"]
    )
    right: dict[str, Tensor] = {}
    for order in get_args(Order):
        z = SplitFeatures(*(projected(head, part, order, trained.extraction, seed) for part in h))
        for value in (next(knn(order, *z, num_classes=classes)), next(knn_self(order, *z))):
            assert value.each is not None, "k-NN says right or wrong for every image"
            right[value.key] = value.each
            yield dataclasses.replace(value, protocol="leakage", measure=f"leakage_{value.measure}")
    batches = _batches(h.test, "sorted", trained.extraction.batch_size, seed)
    for measure, probe, reader in (
        ("leakage", "knn", "k-NN"),
        ("leakage_self", "knn_self", "the nearest other test image"),
    ):
        gained = right[f"{probe}/sorted"] - right[f"{probe}/shuffled"]
        value = _gap(measure, gained, batches)
        yield dataclasses.replace(value, verdict=_verdict(value, reader, len(batches)))


@torch.no_grad()
def projected(
    head: Head, h: Features, order: Order, extraction: ExtractConfig, seed: int
) -> Features:
    """`z` of the rows, in batches of this order; `h` itself does not depend on batches."""
    batches = _batches(h, order, extraction.batch_size, seed)
    with hardware.autocast(extraction.device, extraction.precision):
        z = [head(h.vectors[rows].to(extraction.device), views=1).float().cpu() for rows in batches]
    return h._replace(vectors=torch.cat(z)[torch.cat(batches).argsort()])


def _batches(h: Features, order: Order, batch_size: int, seed: int) -> list[Int64[Tensor, " _"]]:
    """The rows of every batch. Shuffled as when they were extracted, where all could be read."""
    shuffled = torch.randperm(len(h.vectors), generator=rng.generator(seed, "extract"))
    if order != "sorted":
        return list(shuffled.split(1 if order == "singleton" else batch_size))
    assert h.labels is not None, "labels were checked"
    labels = h.labels[shuffled]
    batches: list[Tensor] = []
    for label in labels.unique():
        rows = shuffled[labels == label]
        batches += rows.split(min(batch_size, max(2, math.ceil(len(rows) / _PARTS))))
    return batches


def _gap(measure: str, gained: Float[Tensor, " n"], batches: list[Int64[Tensor, " _"]]) -> Value:
    """The mean, with Student's interval of a jackknife over the sorted batches: images of one batch
    are right or wrong together. The error is never below that of independent images, and batches
    of unequal sizes count as (Σ size)² / Σ size² of one size. Resampling few batches would give too
    narrow an interval."""
    value, n = gained.mean().item(), len(gained)
    sums = np.array([gained[batch].sum().item() for batch in batches])
    sizes = np.array([len(batch) for batch in batches])
    without = (sums - value * sizes) / (n - sizes)  # how far the mean moves without the batch
    count = n**2 / (sizes**2).sum()
    between = ((len(batches) - 1) * without.var()) ** 0.5
    error = max(between, gained.std(correction=0).item() / n**0.5)
    margin = float(stats.t.ppf(0.975, count - 1) * error) if error else 0.0
    return Value(
        protocol="leakage",
        measure=measure,
        where="z",
        unit="share",
        value=value,
        n=n,
        interval=(max(value - margin, -1.0), min(value + margin, 1.0)),
    )


def _verdict(gap: Value, reader: str, batches: int) -> str:
    assert gap.interval is not None, "a gap has one"
    low, high = gap.interval
    reads = f"in {batches} class-sorted batches {reader} reads it {100 * gap.value:+z.1f} points"
    reads += f" ({100 * low:+z.1f} to {100 * high:+z.1f}) against"
    if low <= 0 <= high:
        return f"no leakage into z shown: {reads} shuffled ones, which chance explains"
    return (
        f"z depends on its batch-mates: {reads} shuffled ones; the headline number is the "
        "shuffled one"
    )
