"""Metrics: top-1, top-5, mean per class, 11-point mean average precision."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from headwise import rng
from headwise.errors import UserError
from headwise.evaluation.probes.labels import chance
from headwise.evaluation.statistics.tests import PairedTest, paired_score_test
from headwise.runs.results import RESAMPLES, Settings, Value, mean_value

Metric = Literal["top1", "per_class", "map11"]
METRICS: tuple[Metric, ...] = ("top1", "per_class", "map11")


def score(metric: Metric, answers: Shaped[Tensor, "n *c"], truth: Shaped[Tensor, "n *c"]) -> float:
    """A metric by name, 0 to 1, of predicted and true classes `[n]`; of `map11`, of scores and
    true memberships `[n, c]`."""
    match metric:
        case "top1":
            return (answers == truth).double().mean().item()
        case "per_class":
            return mean_per_class(answers, truth)
        case "map11":
            precisions = average_precision_11(answers, truth)
            return precisions[truth.any(0)].mean().item()


def mean_per_class(predictions: Int64[Tensor, " n"], labels: Int64[Tensor, " n"]) -> float:
    """The mean of each class's accuracy, over the classes that occur among the labels."""
    counts = labels.bincount()
    right = labels[predictions == labels].bincount(minlength=len(counts))
    here = counts > 0
    return (right[here].double() / counts[here]).mean().item()


def per_class_value(usual: Value, labels: Int64[Tensor, " n"]) -> Value:
    """`mean_per_class` beside the usual accuracy, whose `each` says which images are right. `each`
    weighs images so that their mean is the mean over classes; the interval is from resampling the
    images of every class among themselves."""
    assert usual.each is not None, "an accuracy says right or wrong for every image"
    right = usual.each.bool()
    present, place, counts = labels.unique(return_inverse=True, return_counts=True)
    sizes = counts.numpy()
    hits = place[right].bincount(minlength=len(present)).numpy()
    generator = np.random.default_rng(rng.seed_at(0, "per_class"))
    draws = generator.binomial(sizes, hits / sizes, size=(RESAMPLES, len(sizes))) / sizes
    low, high = np.quantile(draws.mean(1), [0.025, 0.975])
    each = right.double() * (len(labels) / (len(present) * counts[place]))
    return replace(
        usual,
        metric="per_class",
        value=each.mean().item(),
        each=each,
        interval=(float(low), float(high)),
        chance=1 / len(present),
        arrays={},
    )


def accuracy_values(
    hits: dict[int, Bool[Tensor, " n"]],
    truth: Int64[Tensor, " n"],
    labels: Int64[Tensor, " m"],
    *,
    protocol: str,
    where: str,
    measure: str | None = None,
    variant: str = "",
    settings: Settings | None = None,
    arrays: dict[str, np.ndarray] | None = None,
) -> Iterator[Value]:
    """Top-1, then top-5 and so on for all `hits` (whether the label of a test image is among so
    many answers), and the mean per class; each with its chance level, the commonest of the training
    `labels` as a constant guess. `arrays` go with top-1. `measure` None: the protocol's name."""
    values = [
        mean_value(
            protocol,
            measure or protocol,
            where,
            right,
            variant=variant,
            metric="" if top == 1 else f"top{top}",
            chance=chance(labels, truth, top),
            settings=settings,
            arrays=arrays if top == 1 else None,
        )
        for top, right in hits.items()
    ]
    yield from values
    yield per_class_value(values[0], truth)


def answer_arrays(
    scores: Float[Tensor, "n c"], truth: Int64[Tensor, " n"]
) -> dict[str, np.ndarray]:
    """What a classifier with these scores says of each image: `predictions`, its class, and
    `margins`, the score of the right class above the highest of the others."""
    return {
        "predictions": scores.argmax(1).int().cpu().numpy(),
        "margins": margins(scores, truth).float().cpu().numpy(),
    }


def margins(scores: Float[Tensor, "n c"], truth: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The score of the right class above the highest of the others; negative if the answer is
    wrong."""
    place = truth[:, None]
    others = scores.scatter(1, place, -torch.inf)
    return scores.gather(1, place)[:, 0] - others.amax(1)


def average_precision_11(
    scores: Float[Tensor, "n c"], targets: Bool[Tensor, "n c"]
) -> Float[Tensor, " c"]:
    """Average precision of every class as PASCAL VOC 2007 has it: the mean, over the recalls 0,
    0.1, …, 1, of the highest precision at that recall or above. (scikit-learn's average precision
    is another one, the area under all recalls.)

    Precision is taken where the score changes: images of equal score come together, so their order
    does not matter. A class without a positive has 0.
    """
    ranked, order = scores.T.sort(dim=1, descending=True)
    found = targets.T.gather(1, order).cumsum(1)
    precision = found.double() / torch.arange(1, len(scores) + 1, device=scores.device)
    precision[:, :-1][ranked[:, :-1] == ranked[:, 1:]] = 0.0
    best_from_here = precision.flip(1).cummax(1).values.flip(1)
    # In whole numbers: 3 of 10 is a recall of 0.3, which floats do not promise.
    needed = (torch.arange(11, device=scores.device) * found[:, -1:] + 9) // 10
    return best_from_here.gather(1, torch.searchsorted(found, needed)).mean(1)


def answers_name(metric: Metric) -> str:
    """Under which name a value's `arrays` keep the answers, beside `truth`."""
    return "scores" if metric == "map11" else "predictions"


def compare_values(
    metric: Metric, a: dict[str, np.ndarray], b: dict[str, np.ndarray], *, seed: int
) -> PairedTest:
    """Compare two systems by the `arrays` of their values in this metric: swap their answers to
    random images. Scores are compared as ranks among the test images, which changes no average
    precision and makes those of two systems exchangeable.

    Raises `UserError` unless both were judged on the same images.
    """
    if not np.array_equal(a["truth"], b["truth"]):
        raise UserError("a comparison needs two runs that were judged on the same test images")
    first, second = (one[answers_name(metric)] for one in (a, b))
    if metric == "map11":
        from scipy.stats import rankdata

        first, second = rankdata(first, axis=0), rankdata(second, axis=0)
    return paired_score_test(
        lambda answers, truth: score(metric, answers, truth),
        torch.from_numpy(first),
        torch.from_numpy(second),
        torch.from_numpy(a["truth"]),
        seed=seed,
    )
