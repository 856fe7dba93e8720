"""A number of an evaluation: what it measures, on which images, and how sure it is."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headwise import rng
from headwise.config import to_dict

Settings = dict[str, Any]
"""Names and JSON values: what a protocol chose or found on the way."""

Unit = Literal["share", "score", "cosine", "distance", "nat", "rank", "gain", "slope"]
"""What a value counts in, so how it is printed. share: a part of the test images, of pairs or of
attention, printed in percent. score: an index from 0 to 1, such as R² or NMI. cosine: −1 to 1.
distance: squared, between rows of length 1. nat: an information or a logarithm. rank: a number of
directions. gain: a ratio, where 1 means no effect. slope: a change for each layer."""

RESAMPLES = 1000
"""Of a bootstrap."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """What a protocol yields for one seed."""

    protocol: str
    """The name that `--protocols` takes, for example `semi`."""
    measure: str
    """What is measured: `linear`, `rank`, `transfer_finetune`."""
    variant: str = ""
    """Which of a family of measures: `10` (percent of the labels), `crop_0.5`, `hue`."""
    metric: str = ""
    """Where it is not the measure's usual one: `top5`, `per_class`, `nmi`, `ari`."""
    where: str
    """What was measured: a tap (`h`), a baseline (`pixels`), an arm (`scratch`), a pair of taps
    (`h-z`), a target."""
    unit: Unit
    value: float
    n: int
    """How many images (or pairs, …) the value is computed from."""
    each: Float[Tensor, " n"] | None = None
    """Where the value is a mean over test images, in their order: what it is the mean of, 1 or 0
    for right or wrong. Two runs on the same images are compared by it, image by image."""
    interval: tuple[float, float] | None = None
    """95 % confidence, where there is no `each` to resample, or resampling it would be wrong."""
    chance: float | None = None
    """What a guess reaches, where there is such a level."""
    verdict: str | None = None
    """What a test of the value says, in words."""
    settings: Settings = field(default_factory=dict)
    """What was chosen or found on the way: k, λ."""
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    """Larger things for figures, by name without slash: `confusion`, `spectrum`."""

    @property
    def key(self) -> str:
        """`linear_top5/h`."""
        return key_of(self.measure, self.variant, self.metric, self.where)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One number of results.json: the mean of a protocol's values over seeds, or the difference of
    two runs. The images it belongs to are those of its `Section`."""

    protocol: str
    measure: str
    variant: str = ""
    metric: str = ""
    where: str = ""
    """These five as in `Value`; empty where a measure has no variant, metric or place."""
    unit: Unit
    value: float
    interval: tuple[float, float] | None = None
    """95 %."""
    std: float | None = None
    """Sample standard deviation over seeds, with more than one."""
    standard_error: float | None = None
    """Of a mean over test images."""
    n: int
    seeds: tuple[int, ...] = ()
    """Of the evaluation. A protocol that draws nothing has one."""
    chance: float | None = None
    """None also where it differs from seed to seed: then `settings` has `chances`."""
    p_value: float | None = None
    verdict: str | None = None
    """What a test of the value says, in words."""
    against: str | None = None
    """The directory of another run, where this is the difference to its value."""
    version: int
    """Of the protocol: rises when the same model, images and seed give another value."""
    settings: Settings = field(default_factory=dict)
    """What was chosen or found on the way, a list over seeds where seeds differ."""

    @property
    def key(self) -> str:
        """`linear_top5/h`; `difference/linear_top5/h` for the difference of two runs."""
        key = key_of(self.measure, self.variant, self.metric, self.where)
        return key if self.against is None else f"difference/{key}"

    def __getitem__(self, name: str) -> Any:
        """`result["value"]`, `result["k"]`: a field or a setting, as in version 0.1, where results
        were dictionaries. Raises `KeyError` for what this result does not have."""
        return {**self.settings, **to_json(self)}[name]


def key_of(measure: str, variant: str = "", metric: str = "", where: str = "") -> str:
    """The name of a number within its section."""
    name = "_".join(filter(None, (measure, variant, metric)))
    return f"{name}/{where}" if where else name


def to_json(result: Result) -> Settings:
    """As results.json has it, without what is empty."""
    return {name: v for name, v in to_dict(result).items() if v not in (None, "", [], {})}


_AGREED = ("config", "labels", "steps", "metric", "train_images", "target_fingerprint", "centred")
"""The settings that two results of one measure share if they can be compared. `config` is what the
protocol was asked for; the others are of one place, such as a transfer's target."""


def unlike(a: Result, b: Result) -> tuple[str, object, object] | None:
    """The first setting in which two results of one measure differ, so that they cannot be
    compared: its name, and the value of each. None if they agree."""
    pairs = {
        "version": (a.version, b.version),
        "evaluation seeds": (a.seeds, b.seeds),
        **{name: (a.settings.get(name), b.settings.get(name)) for name in _AGREED},
    }
    for name, (x, y) in pairs.items():
        if x == y or (a.where != b.where and name not in ("version", "evaluation seeds", "config")):
            continue
        if isinstance(x, dict) and isinstance(y, dict):
            name = next(key for key in {**x, **y} if x.get(key) != y.get(key))
            x, y = x.get(name), y.get(name)
        return name, x, y
    return None


def mean_value(
    protocol: str,
    measure: str,
    where: str,
    each: Float[Tensor, " n"] | Bool[Tensor, " n"],
    *,
    variant: str = "",
    metric: str = "",
    unit: Unit = "share",
    chance: float | None = None,
    settings: Settings | None = None,
    arrays: dict[str, np.ndarray] | None = None,
) -> Value:
    """The mean over test images."""
    each = each.double().cpu()
    return Value(
        protocol=protocol,
        measure=measure,
        variant=variant,
        metric=metric,
        where=where,
        unit=unit,
        value=each.mean().item(),
        n=len(each),
        each=each,
        chance=chance,
        settings=settings or {},
        arrays=arrays or {},
    )


def summarise(values: Sequence[Value], seeds: Sequence[int], *, version: int) -> Result:
    """One result of the values of one key at several seeds: their mean, its 95 % interval over
    test images, and the standard deviation over seeds where there are several."""
    first = values[0]
    assert all(value.key == first.key for value in values)
    interval, error = _interval(values)
    chances = [value.chance for value in values]
    settings = _combined([value.settings for value in values])
    if len(set(chances)) > 1:
        settings["chances"] = chances
    several = len(values) > 1
    return Result(
        protocol=first.protocol,
        measure=first.measure,
        variant=first.variant,
        metric=first.metric,
        where=first.where,
        unit=first.unit,
        value=statistics.fmean(value.value for value in values),
        interval=interval,
        std=statistics.stdev(value.value for value in values) if several else None,
        standard_error=error,
        n=first.n,
        seeds=tuple(seeds),
        chance=first.chance if len(set(chances)) == 1 else None,
        verdict=first.verdict,
        version=version,
        settings=settings,
    )


def _interval(values: Sequence[Value]) -> tuple[tuple[float, float] | None, float | None]:
    """The 95 % interval of the mean over seeds, and its standard error; None where not known."""
    interval = error = None
    if values[0].interval is not None:
        lows, highs = zip(*(v.interval for v in values if v.interval is not None), strict=True)
        interval = (statistics.fmean(lows), statistics.fmean(highs))
    if values[0].each is not None:
        each = torch.stack([value.each for value in values if value.each is not None]).mean(0)
        error = each.std(correction=0).item() / len(each) ** 0.5
        interval = interval or bootstrap_mean(each)
    return interval, error


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


def _combined(settings: list[Settings]) -> Settings:
    """The settings of all seeds; those that differ from seed to seed as a list."""
    return {
        key: settings[0][key]
        if all(s.get(key) == settings[0][key] for s in settings)
        else [s.get(key) for s in settings]
        for key in settings[0]
    }
