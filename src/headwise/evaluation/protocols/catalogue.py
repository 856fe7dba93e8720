"""The protocols by name: what each needs, and who measures."""

import dataclasses
import logging
from collections.abc import Iterator

from headwise.data import Splits
from headwise.errors import UserError, nearest
from headwise.evaluation.config import PROTOCOLS, EvaluateConfig, Protocol
from headwise.evaluation.probes.labels import labelled
from headwise.evaluation.protocols.cluster import cluster
from headwise.evaluation.protocols.factors import factors
from headwise.evaluation.protocols.finetune import finetune
from headwise.evaluation.protocols.geometry import between_taps, between_twins, geometry
from headwise.evaluation.protocols.knn import knn, knn_self, knn_weighted
from headwise.evaluation.protocols.leakage import leakage
from headwise.evaluation.protocols.linear import linear
from headwise.evaluation.protocols.linear_sgd import linear_sgd
from headwise.evaluation.protocols.robustness import robustness
from headwise.evaluation.protocols.semi import semi
from headwise.evaluation.protocols.transfer import transfer
from headwise.evaluation.protocols.transformations import transformations
from headwise.evaluation.subject import Subject, Table
from headwise.runs.results import Value

log = logging.getLogger("headwise")

VERSION = 1
"""Of the protocols: rises when the same model, images and seed give another value."""

ON_TABLES = (
    "knn",
    "knn_weighted",
    "knn_self",
    "linear",
    "linear_10",
    "cluster",
    "factors",
    "geometry",
)
"""Those that read the features of every tap."""

WITHOUT_SEED = ("knn", "knn_weighted", "knn_self")
"""Nothing is drawn in them: one seed says all."""

_WITHOUT_LABELS = ("geometry", "transformations", "transfer")


def chosen_protocols(config: EvaluateConfig, images: Splits, spec: str) -> tuple[Protocol, ...]:
    """The protocols in their order, with `all` spelled out.

    Raises `UserError` for one that is unknown or that these images cannot serve; what `all` leaves
    out is logged.
    """
    for name in config.protocols:
        if name not in (*PROTOCOLS, "all"):
            raise UserError(f"--protocols must be known; got {name!r}; {nearest(name, PROTOCOLS)}")
    obstacles = {name: _obstacle(name, config, images, spec) for name in PROTOCOLS}
    for name, obstacle in obstacles.items():
        if obstacle and name in config.protocols:
            raise UserError(obstacle)
        if obstacle and "all" in config.protocols:
            log.warning("left out: %s", obstacle)
    everything = "all" in config.protocols
    return tuple(n for n in PROTOCOLS if n in config.protocols or (everything and not obstacles[n]))


def _obstacle(name: Protocol, config: EvaluateConfig, images: Splits, spec: str) -> str | None:
    """Why a protocol cannot run on these images."""
    if name == "transfer" and not config.transfer.targets:
        return "transfer needs labelled targets; got none; give --transfer.targets NAME=IMAGES"
    if name == "factors" and not images.train.factors:
        return f"factors needs images with known factors (builtin:shapes has); {spec} has none"
    return None if name in _WITHOUT_LABELS else missing_labels(images, spec)


def missing_labels(images: Splits, spec: str) -> str | None:
    """Why the probes cannot run: labels or test images that are missing."""
    if labelled(images):
        return None
    if images.train.labels is None:
        return (
            f"the probes need labels; {spec} has none; "
            "give labelled images: a folder for each class, or --data.label-column"
        )
    return (
        f"the probes need labelled test images; {spec} has none; "
        "add a test split or raise --data.test-fraction"
    )


def measure(name: Protocol, subject: Subject, config: EvaluateConfig, seed: int) -> Iterator[Value]:
    """One protocol with one seed."""
    match name:
        case "linear_sgd":
            yield from linear_sgd(subject, config.linear_sgd, seed=seed)
        case "semi":
            yield from semi(subject, config.semi, seed=seed)
        case "finetune":
            yield from finetune(subject, config.finetune, seed=seed)
        case "transfer":
            yield from transfer(subject, config.transfer, seed=seed)
        case "transformations":
            yield from transformations(subject, config.transformations, seed=seed)
        case "leakage":
            yield from leakage(subject, seed=seed)
        case "robustness":
            yield from robustness(subject, config.robustness, seed=seed)
        case _:
            found: dict[str, list[Value]] = {}
            for tap, table in subject.tables.items():
                if tap == "z" and "h" in found and not subject.model.head.layers:  # z is h
                    named = ((value, value.name.removesuffix("h") + tap) for value in found["h"])
                    found[tap] = [dataclasses.replace(value, name=name) for value, name in named]
                else:
                    found[tap] = list(measure_table(name, tap, table, subject.images, seed))
                yield from found[tap]
            if name == "geometry":
                yield from between_taps(subject, seed=seed)
                yield from between_twins(subject, seed=seed)


def measure_table(
    name: Protocol, tap: str, table: Table, images: Splits, seed: int
) -> Iterator[Value]:
    """One protocol on the features of one tap."""
    train, test = table
    classes = len(images.train.classes)
    match name:
        case "knn":
            yield from knn(tap, train, test, num_classes=classes)
        case "knn_weighted":
            yield from knn_weighted(tap, train, test, num_classes=classes)
        case "knn_self":
            yield from knn_self(tap, train, test)
        case "linear":
            yield from linear(tap, train, test, seed=seed)
        case "linear_10":
            yield from linear(tap, train, test, seed=seed, fraction=0.1)
        case "cluster":
            yield from cluster(tap, train, test, seed=seed)
        case "factors":
            yield from factors(tap, images, train, test, seed=seed)
        case "geometry":
            yield from geometry(tap, train, test, seed=seed)
        case _:
            raise AssertionError(name)
