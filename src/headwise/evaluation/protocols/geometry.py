"""The geometry of the test features: spread, collapse, classes, twins, and what taps share.

Only `separation` needs labels. docs/no-labels.md says what to make of the values.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Int64
from scipy import stats
from torch import Tensor

from headwise import rng
from headwise.augment import view_batches
from headwise.errors import UserError
from headwise.evaluation.extracted import BASELINES, ExtractedRun, SplitFeatures
from headwise.evaluation.probes.labels import check_classes
from headwise.evaluation.protocols.description import Description
from headwise.evaluation.statistics.geometry import (
    class_separation,
    effective_rank,
    feature_std,
    linear_cka,
    renyi_mutual_information,
    singular_values,
    twin_distances,
    uniformity,
)
from headwise.features.extract import Features, all_taps, at_taps, finite
from headwise.runs.results import Unit, Value, mean_value

GEOMETRY = Description(
    title="Geometry of the features",
    definition=(
        "How the test features lie: over how many directions they spread, how close views of one "
        "image are, and what a tap shares with h. No end of these scales is better as such. Only "
        "class separation needs labels."
    ),
    labels={
        "rank": "effective rank",
        "uniformity": "uniformity",
        "alignment": "alignment",
        "std": "standard deviation",
        "separation": "class separation",
        "cka": "CKA",
        "cka_runs": "CKA with the other run",
        "renyi": "Rényi information",
        "renyi_shuffled": "Rényi information of shuffled images",
    },
    section="geometry",
    elsewhere={"cka": "pairs", "cka_runs": "pairs", "renyi": "pairs", "renyi_shuffled": "pairs"},
    source="arXiv 2210.02885, 2005.10242, 2011.10566, 1905.00414, 2503.00507",
    needs="images",
)

# Of larger test sets, so many rows. Effective rank depends on their number: one for all runs.
_ROWS = 4096
# For measures of all pairs of rows, and images whose views are compared.
_PAIR_ROWS = 2048
_GROUPS = 10
"""Of the jackknife."""


def geometry(tap: str, train: Features, test: Features, *, seed: int) -> Iterator[Value]:
    """`rank`, `uniformity`, `std` and, with labels, `separation` of the test features."""
    x = finite(f"geometry's {tap}", test.vectors)
    rows, fewer = (_sample(len(x), most, seed) for most in (_ROWS, _PAIR_ROWS))
    most = {"most": min(len(rows), x.shape[1])}
    spectrum = {"spectrum": singular_values(x[rows]).numpy()}
    rank = _estimate("rank", tap, effective_rank, x[rows], unit="rank")
    yield dataclasses.replace(rank, settings=most, arrays=spectrum)
    yield _estimate("uniformity", tap, uniformity, x[fewer], unit="nat")
    yield _estimate("std", tap, feature_std, x[rows])
    if test.labels is not None:
        labels = test.labels[rows]
        check_classes(f"separation/{tap}", labels)
        separation = _estimate("separation", tap, class_separation, x[rows], labels)
        chance = (len(labels.unique()) - 1) / (len(rows) - 1)
        yield dataclasses.replace(separation, chance=chance)


def between_taps(tables: Mapping[str, SplitFeatures], *, seed: int) -> Iterator[Value]:
    """`cka/h-TAP` and `renyi/h-TAP` of the test features of `h` and every other tap; beside them
    `renyi/h-h`, and `renyi_shuffled/h-TAP` with the images of one of the two shuffled. None where
    `h` is not among the taps."""
    taps = [tap for tap in tables if tap not in ("h", *BASELINES)] if "h" in tables else []
    for tap in ["h", *taps] if taps else []:
        h, other = (finite(f"geometry's {t}", tables[t].test.vectors) for t in ("h", tap))
        rows, fewer = (_sample(len(h), most, seed) for most in (_ROWS, _PAIR_ROWS))
        if tap != "h":
            chance = linear_cka(h[rows], other[_shuffled(rows, seed)]).item()
            cka = _estimate("cka", f"h-{tap}", linear_cka, h[rows], other[rows])
            yield dataclasses.replace(cka, chance=chance)
        columns = (h[fewer], other[fewer])
        renyi = _estimate("renyi", f"h-{tap}", renyi_mutual_information, *columns, unit="nat")
        renyi = dataclasses.replace(renyi, settings={"centred": True})
        shuffled = renyi_mutual_information(h[fewer], other[_shuffled(fewer, seed)]).item()
        yield renyi
        yield dataclasses.replace(renyi, measure="renyi_shuffled", value=shuffled, interval=None)


def _shuffled(rows: Int64[Tensor, " m"], seed: int) -> Int64[Tensor, " m"]:
    return rows[torch.randperm(len(rows), generator=rng.generator(seed, "unrelated"))]


def between_twins(trained: ExtractedRun, *, seed: int) -> Iterator[Value]:
    """`alignment/TAP`: the mean squared distance of two views of one test image, under the
    augmentation of pretraining. A head that attends over samples sees either view in a batch
    without its twin."""
    taps, model, extraction = _taps(trained), trained.model, trained.extraction
    images = trained.test_images
    steps = math.ceil(min(_PAIR_ROWS, len(images)) / extraction.batch_size)
    size = min(_PAIR_ROWS, len(images)) // steps
    # The same images for every seed and run, other views.
    images = images.select(_sample(len(images), steps * size, seed=0))
    batches = view_batches(
        images,
        extraction.augment,
        batch_size=size,
        steps=range(steps),
        seed=seed,
        device=extraction.device,
        workers=extraction.workers,
    )
    seen: list[Tensor] = []
    distances: dict[str, list[Tensor]] = {tap: [] for tap in taps}
    for views in batches:
        ones, twins = (
            at_taps(model.encoder, model.head, v, taps, extraction) for v in views.pixels.chunk(2)
        )
        seen.append(views.shown[~views.replaced])
        for tap in taps:
            distances[tap].append(twin_distances(ones[tap], twins[tap]).cpu()[~views.replaced])
    for tap in taps:
        each = torch.cat(distances[tap])[torch.cat(seen).argsort()]
        yield mean_value("geometry", "alignment", tap, each, unit="distance")


def cka_between(a: Features, b: Features) -> float:
    """Linear CKA of two runs' features of the same images. Raises `UserError` for others."""
    if not torch.equal(a.index, b.index):
        raise UserError(
            f"CKA needs features of the same images; got {len(a.index)} and {len(b.index)} that "
            "differ; extract both from one set"
        )
    return linear_cka(*(finite("CKA's", one.vectors) for one in (a, b))).item()


def _taps(trained: ExtractedRun) -> list[str]:
    """Those of the tables that are of the model."""
    known = all_taps(trained.model.encoder, trained.model.head)
    return [tap for tap in known if tap in trained.tables]


def _sample(n: int, most: int, seed: int) -> Int64[Tensor, " m"]:
    """All rows, or `most` drawn among them, in their order."""
    drawn = torch.randperm(n, generator=rng.generator(seed, "geometry"))[:most]
    return drawn.sort().values


def _estimate(
    measure: str,
    where: str,
    statistic: Callable[..., Tensor],
    *columns: Tensor,
    unit: Unit = "score",
) -> Value:
    """The statistic of these rows, with the 95 % interval of a delete-a-group jackknife. (Resampled
    rows would count some images twice: that lowers ranks, and pairs of equal rows have distance
    0.) Rows are dealt to the groups at random, lest a group be a class."""
    n, value, interval = len(columns[0]), statistic(*columns).item(), None
    if n >= 2 * _GROUPS:
        group = torch.randperm(n, generator=rng.generator(0, "jackknife")) % _GROUPS
        kept = [group != left_out for left_out in range(_GROUPS)]
        parts = [statistic(*(column[k] for column in columns)) for k in kept]
        without = torch.stack(parts).double()
        error = ((_GROUPS - 1) * without.var(correction=0)).sqrt().item()
        margin = float(stats.t.ppf(0.975, _GROUPS - 1)) * error
        interval = (value - margin, value + margin)
    return Value(
        protocol="geometry",
        measure=measure,
        where=where,
        unit=unit,
        value=value,
        n=n,
        interval=interval,
    )
