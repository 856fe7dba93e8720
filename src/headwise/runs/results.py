"""A number of an evaluation, what it depends on, and how sure it is."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headwise import rng

Result = dict[str, Any]
"""A value as results.json has it (docs/metrics.md)."""

RESAMPLES = 1000
"""Of a bootstrap."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """What a protocol yields."""

    name: str
    """`protocol/what`, for example `linear/h` or `semi_1/scratch`."""
    value: float
    n: int
    """How many images (or pairs, …) stand behind the value."""
    each: Float[Tensor, " n"] | None = None
    """Where the value is a mean over test images, in their order: what it is the mean of, 1 or 0
    for right or wrong. Two runs on the same images are compared by it, image by image."""
    interval: tuple[float, float] | None = None
    """95 % confidence, where there is no `each` to resample, or resampling it would be wrong."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What was chosen or found on the way: k, λ, chance."""
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    """Larger things for figures, by name without slash: `confusion`, `spectrum`."""


def mean_value(
    name: str,
    each: Float[Tensor, " n"] | Bool[Tensor, " n"],
    settings: dict[str, Any] | None = None,
    arrays: dict[str, np.ndarray] | None = None,
) -> Value:
    """The mean over test images."""
    each = each.double().cpu()
    return Value(
        name=name,
        value=each.mean().item(),
        n=len(each),
        each=each,
        settings=settings or {},
        arrays=arrays or {},
    )


def summarise(values: Sequence[Value], seeds: Sequence[int]) -> Result:
    """One result of the values of one name at several seeds: their mean, its 95 % interval over
    test images, and the standard deviation over seeds where there are several."""
    first = values[0]
    assert all(value.name == first.name for value in values)
    result: Result = {"value": statistics.fmean(value.value for value in values), "n": first.n}
    result["seeds"] = list(seeds)
    if len(values) > 1:
        result["std"] = statistics.stdev(value.value for value in values)
    interval = None
    if first.interval is not None:
        found = [value.interval for value in values if value.interval is not None]
        interval = tuple(statistics.fmean(ends) for ends in zip(*found, strict=True))
    if first.each is not None:
        each = torch.stack([value.each for value in values if value.each is not None]).mean(0)
        result["standard_error"] = each.std(correction=0).item() / len(each) ** 0.5
        interval = interval or bootstrap_mean(each)
    if interval is not None:
        result["interval"] = list(interval)
    settings = [value.settings for value in values]
    return result | (settings[0] if all(s == settings[0] for s in settings) else _lists(settings))


def bootstrap_mean(each: Float[Tensor, " n"], seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean, from resampled rows."""
    levels, counts = each.unique(return_counts=True)
    if len(levels) <= 32:  # right or wrong at a few seeds: resampling counts is the same, sooner
        draws = np.random.default_rng(rng.seed_at(seed, "bootstrap")).multinomial(
            len(each), counts.double().numpy() / len(each), RESAMPLES
        )
        means = draws @ levels.double().numpy() / len(each)
    else:
        generator = rng.generator(seed, "bootstrap")
        means = np.array(
            [
                each[torch.randint(len(each), each.shape, generator=generator)].mean().item()
                for _ in range(RESAMPLES)
            ]
        )
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _lists(settings: list[dict[str, Any]]) -> dict[str, Any]:
    """Settings that differ from seed to seed, as a list each."""
    return {
        key: settings[0][key]
        if all(s.get(key) == settings[0][key] for s in settings)
        else [s.get(key) for s in settings]
        for key in settings[0]
    }
