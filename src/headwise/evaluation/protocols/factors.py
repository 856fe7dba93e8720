"""How well known nuisance factors can be read from features."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from headwise import rng
from headwise.data import Splits
from headwise.data.split import test_images
from headwise.errors import UserError
from headwise.evaluation.protocols.description import Description
from headwise.evaluation.protocols.linear import linear_probe
from headwise.features.extract import Features, check_tables
from headwise.runs.results import RESAMPLES, Settings, Value

FACTORS = Description(
    title="Known factors of the images",
    definition=(
        "How well a factor other than the class can be read from the features: 0 is what a "
        "constant guess reaches, 1 is exact. The head removes what h has and z does not."
    ),
    labels={"factor": "{variant}", "factors": "mean of the factors"},
    section="factors",
    needs="factors",
)

_PENALTIES = np.logspace(-2, 5, 15)


class Reading(NamedTuple):
    """How far off a reader is on each test image, and how far a constant guess is. The reader's
    score is 1 − Σ error / Σ constant, negative values cut to 0: R² where both are squared
    differences, rescaled accuracy where both are 1 for wrong."""

    error: Float[Tensor, " m"]
    constant: Float[Tensor, " m"]


def factors(
    tap: str, images: Splits, train: Features, test: Features, *, seed: int
) -> Iterator[Value]:
    """A score in [0, 1] for each factor of the images, and the mean over factors: 0 is what a
    constant guess reaches, 1 is exact.

    Continuous factors: R² on the test images of a ridge regression (penalty by leave-one-out),
    negative values cut to 0; NAME_sine and NAME_cosine count as one factor, an angle. Categorical
    factors (integers): accuracy of the linear probe, rescaled so that the commonest training class
    scores 0. Intervals are over resampled test images.

    Raises `UserError` for images without factors, a factor that one split lacks, and features that
    are not finite.
    """
    known, asked = images.train.factors, test_images(images).factors
    if not known:
        raise UserError(
            "factors needs images whose nuisance factors are known; got images without any; "
            "use builtin:shapes"
        )
    if known.keys() != asked.keys():
        raise UserError(
            "factors needs the same factors on both splits; "
            f"got {', '.join(sorted(known.keys() ^ asked.keys()))} on one only"
        )
    by_factor = readings(
        train.vectors, _at(known, train), test.vectors, _at(asked, test), seed=seed
    )
    values = list(reading_values(by_factor, protocol="factors", measure="factor", where=tap))
    scores = {value.variant: value.value for value in values}
    yield from values
    yield Value(
        protocol="factors",
        measure="factors",
        where=tap,
        unit="score",
        value=float(np.mean(list(scores.values()))),
        n=len(test.vectors),
        interval=_interval(_resampled(by_factor).mean(1)),
        chance=0.0,
        settings={"scores": scores},
    )


def readings(
    train: Float[Tensor, "n p"],
    train_factors: dict[str, Tensor],
    test: Float[Tensor, "m p"],
    test_factors: dict[str, Tensor],
    *,
    seed: int,
) -> dict[str, Reading]:
    """Every factor, read from the test rows by a reader fitted on the training rows: ridge where
    it is continuous (floating point), else the linear probe."""
    continuous = [name for name, values in train_factors.items() if values.is_floating_point()]
    by_factor = ridge_readings(
        train,
        {name: train_factors[name] for name in continuous},
        test,
        {name: test_factors[name] for name in continuous},
    )
    for name in [name for name in train_factors if name not in continuous]:
        labels, test_labels = train_factors[name], test_factors[name]
        predictions = linear_probe(train, labels, test, test_labels, seed=seed).predictions
        wrong = predictions != test_labels
        by_factor[name] = Reading(wrong.double(), (test_labels != labels.mode().values).double())
    return by_factor


def ridge_readings(
    train: Float[Tensor, "n p"],
    train_targets: dict[str, Tensor],
    test: Float[Tensor, "m p"],
    test_targets: dict[str, Tensor],
) -> dict[str, Reading]:
    """Continuous targets, read by ridge regression on standardised features, the penalty of each
    by leave-one-out on the training rows. NAME_sine and NAME_cosine are one target, an angle."""
    check_tables("ridge regression", train, test)
    if not train_targets:
        return {}
    scaler = StandardScaler().fit(train.numpy())
    y, truth = (
        torch.stack([targets[name] for name in train_targets], 1).double().numpy()
        for targets in (train_targets, test_targets)
    )
    ridge = RidgeCV(_PENALTIES, alpha_per_target=True)
    ridge.fit(scaler.transform(train.numpy()), y)
    guess = ridge.predict(scaler.transform(test.numpy())).reshape(truth.shape)
    by_target: dict[str, Reading] = {}
    for i, name in enumerate(map(_angle, train_targets)):
        error = torch.from_numpy((truth[:, i] - guess[:, i]) ** 2)
        constant = torch.from_numpy((truth[:, i] - y[:, i].mean()) ** 2)
        before = by_target.get(name, Reading(torch.zeros_like(error), torch.zeros_like(constant)))
        by_target[name] = Reading(before.error + error, before.constant + constant)
    return by_target


def reading_values(
    by_factor: dict[str, Reading],
    *,
    protocol: str,
    measure: str,
    where: str,
    settings: Settings | None = None,
) -> Iterator[Value]:
    """The score of every reading, with a bootstrap interval over the test images."""
    scores, resampled = _scores(by_factor), _resampled(by_factor)
    for i, (name, reading) in enumerate(by_factor.items()):
        yield Value(
            protocol=protocol,
            measure=measure,
            variant=name,
            where=where,
            unit="score",
            value=float(scores[i]),
            n=len(reading.error),
            interval=_interval(resampled[:, i]),
            chance=0.0,
            settings=settings or {},
        )


def _scores(by_factor: dict[str, Reading]) -> Float[np.ndarray, " readings"]:
    return _score(*(part.sum(0) for part in _stacked(by_factor)))


def _resampled(by_factor: dict[str, Reading]) -> Float[np.ndarray, "resamples readings"]:
    """The scores on resampled test images, the same for all readings."""
    error, constant = _stacked(by_factor)
    n = len(error)
    draw = np.random.default_rng(rng.seed_at(0, "bootstrap"))
    counts = (np.bincount(draw.integers(n, size=n), minlength=n) for _ in range(RESAMPLES))
    return np.stack([_score(count @ error, count @ constant) for count in counts])


def _stacked(
    by_factor: dict[str, Reading],
) -> tuple[Float[np.ndarray, "m readings"], Float[np.ndarray, "m readings"]]:
    error, constant = (torch.stack(part, 1) for part in zip(*by_factor.values(), strict=True))
    return error.double().numpy(), constant.double().numpy()


def _score(
    error: Float[np.ndarray, " readings"], constant: Float[np.ndarray, " readings"]
) -> Float[np.ndarray, " readings"]:
    """Of summed errors; 0 where there is nothing to read."""
    share = np.divide(error, constant, out=np.ones_like(error), where=constant > 0)
    return np.clip(1 - share, 0, 1)


def _interval(scores: Float[np.ndarray, " resamples"]) -> tuple[float, float]:
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)


def _at(factors: dict[str, Tensor], features: Features) -> dict[str, Tensor]:
    return {name: values.cpu()[features.index] for name, values in factors.items()}


def _angle(name: str) -> str:
    """The name of the angle that a factor is the sine or cosine of, else its own name."""
    return name.removesuffix("_sine").removesuffix("_cosine")
