"""Which protocols run: those that were asked for and that the images allow."""

import logging

from headwise.data import Splits
from headwise.errors import UserError
from headwise.evaluation.config import PROTOCOLS, EvaluateConfig, ProtocolName, protocol
from headwise.evaluation.probes.labels import check_classes, check_seen, labelled

log = logging.getLogger("headwise")


def chosen_protocols(config: EvaluateConfig, images: Splits, spec: str) -> tuple[ProtocolName, ...]:
    """The protocols in their order, with `all` spelled out; what it leaves out is logged.

    Raises `UserError` as `check_protocols`.
    """
    obstacles = check_protocols(config, images, spec)
    everything = "all" in config.protocols
    for obstacle in filter(None, obstacles.values()):
        if everything:
            log.warning("left out: %s", obstacle)
    return tuple(n for n in PROTOCOLS if n in config.protocols or (everything and not obstacles[n]))


def check_protocols(
    config: EvaluateConfig, images: Splits, spec: str
) -> dict[ProtocolName, str | None]:
    """Why each protocol cannot run on these images, which need not be decoded; None where it can.

    Raises `UserError` for one that was asked for by name, and for an unknown one.
    """
    for name in config.protocols:
        if name != "all":
            protocol(name, config)  # an unknown name ends here
    obstacles = {name: _obstacle(name, config, images, spec) for name in PROTOCOLS}
    for name, obstacle in obstacles.items():
        if obstacle and name in config.protocols:
            raise UserError(obstacle)
    return obstacles


def _obstacle(name: ProtocolName, config: EvaluateConfig, images: Splits, spec: str) -> str | None:
    """Why a protocol cannot run on these images."""
    needs = protocol(name, config).description.needs
    match needs:
        case "images":
            return None
        case "targets" if config.transfer.targets:
            return None
        case "targets":
            return f"{name} needs labelled targets; got none; give --transfer.targets NAME=IMAGES"
        case "factors" if not images.train.factors:
            return f"{name} needs images with known factors (builtin:shapes has); {spec} has none"
        case "factors" | "labels":
            return missing_labels(images, spec)


def missing_labels(images: Splits, spec: str) -> str | None:
    """Why the probes cannot run: labels, classes or test images that are missing."""
    if labelled(images):
        return _missing_classes(images, spec)
    if images.train.labels is None:
        return (
            f"the probes need labels; {spec} has none; "
            "give labelled images: a folder for each class, or --data.label-column"
        )
    if images.test is not None:
        return (
            f"the probes need labelled test images; those of {spec} have no labels; "
            "give only its training images, so that test images are drawn from them"
        )
    return (
        f"the probes need labelled test images; {spec} has none; "
        "add a test split or raise --data.test-fraction"
    )


def _missing_classes(images: Splits, spec: str) -> str | None:
    """Why the probes cannot run on labelled images."""
    train, test = images
    assert train.labels is not None, "the images are labelled"
    assert test is not None, "there are test images"
    assert test.labels is not None, "they are labelled"
    try:
        check_classes("a probe", train.labels)
        check_seen("a probe", train.labels, test.labels, train.classes)
    except UserError as error:
        return f"{spec}: {error}"
    return None
