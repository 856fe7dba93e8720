"""What to transfer to: the twelve sets of SimCLR's table with their metrics, or images by name."""

from collections.abc import Sequence
from typing import NamedTuple

from headwise.data import DataConfig, Splits, open_images
from headwise.data.split import labelled_splits
from headwise.data.torchvision_sets import data_root
from headwise.errors import UserError, nearest
from headwise.evaluation.probes.labels import labelled
from headwise.evaluation.statistics.metrics import METRICS, Metric
from headwise.model.trained import count_seen, load_config
from headwise.runs.directory import Run


class Preset(NamedTuple):
    spec: str
    metric: Metric


PRESETS = {
    "food101": Preset("torchvision:Food101", "top1"),
    "cifar10": Preset("torchvision:CIFAR10", "top1"),
    "cifar100": Preset("torchvision:CIFAR100", "top1"),
    "birdsnap": Preset("birdsnap", "top1"),
    "sun397": Preset("torchvision:SUN397", "top1"),
    "cars": Preset("torchvision:StanfordCars", "top1"),
    "aircraft": Preset("torchvision:FGVCAircraft", "per_class"),
    "voc2007": Preset("torchvision:VOC2007", "map11"),
    "dtd": Preset("torchvision:DTD", "top1"),
    "pets": Preset("torchvision:OxfordIIITPet", "per_class"),
    "caltech101": Preset("torchvision:Caltech101", "per_class"),
    "flowers": Preset("torchvision:Flowers102", "per_class"),
}
"""By name: where the images are, and the paper's metric. birdsnap is a folder in `data_root()`."""


class Target(NamedTuple):
    """Labelled images, which pretraining should not have seen."""

    name: str
    spec: str
    images: Splits
    metric: Metric
    seen_images: int | None = None
    """Test images that pretraining saw; None if it is not known."""


def open_targets(
    texts: Sequence[str], *, limit: int | None = None, run: Run | None = None
) -> tuple[Target, ...]:
    """All targets. Raises `UserError` for one that is not there or is named twice."""
    targets = tuple(open_target(text, limit=limit, run=run) for text in texts)
    names = [target.name for target in targets]
    if not names or len(set(names)) < len(names):
        raise UserError(
            "--transfer.targets must name at least one target, each once; "
            f"got {' '.join(names) or 'none'}"
        )
    return targets


def open_target(text: str, *, limit: int | None = None, run: Run | None = None) -> Target:
    """The target that `PRESET`, `NAME=IMAGES` or `NAME:METRIC=IMAGES` names; images as for --data.

    A preset's name takes the preset's metric, another is judged by top1. `limit`: images of each
    split at most. `run`: whose pretraining made images squares, and may have seen the test images.
    Raises `UserError` for what cannot be read, and for images without labels or without a test
    split.
    """
    where = f"--transfer.targets {text}"
    name, spec, metric = _parsed(text, where)
    try:
        config = DataConfig(spec=spec or _place(name), limit=limit)
        config = config if run is None else config.like(load_config(run).data)
        images = open_images(config, check=_check_labelled)
        if metric != "map11":  # there an image may be of no class at all
            images = labelled_splits(images)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    seen_images = None if run is None else count_seen(run, images.test, where)
    return Target(name, spec or PRESETS[name].spec, images, metric, seen_images)


def _check_labelled(images: Splits) -> None:
    if not labelled(images):
        raise UserError(
            "it must have labelled training and test images; it has not: "
            "give a folder for each class"
        )


def _parsed(text: str, where: str) -> tuple[str, str, Metric]:
    """Name, images ("" for a preset's own) and metric."""
    left, equals, spec = text.partition("=")
    name, colon, given = left.partition(":")
    if not equals and name not in PRESETS:
        raise UserError(
            f"{where} must be one of the paper's sets, or NAME=IMAGES; {nearest(name, PRESETS)}"
        )
    if not name or "/" in name or any(map(str.isspace, name)) or (equals and not spec):
        raise UserError(f"{where} must be NAME=IMAGES, the name without spaces and slashes")
    for metric in METRICS:
        if metric == given:
            return name, spec, metric
    if colon:
        raise UserError(f"{where} must name a known metric; {nearest(given, METRICS)}")
    return name, spec, PRESETS[name].metric if name in PRESETS else "top1"


def _place(preset: str) -> str:
    if preset != "birdsnap":
        return PRESETS[preset].spec
    folder = data_root() / preset
    if not folder.is_dir():
        raise UserError(
            f"it must lie in {folder}, as train/CLASS/IMAGE and test/CLASS/IMAGE: its authors give "
            "a list of addresses to get it from; or name its folder, birdsnap=FOLDER"
        )
    return str(folder)
