"""What the presets begin with: the settings, the images and the seeds of each budget."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

from headwise.augment import AugmentConfig
from headwise.data import DataConfig
from headwise.encoders.build import SMALL_RESNET, EncoderConfig
from headwise.errors import UserError
from headwise.evaluation.config import EvaluateConfig, ProtocolName
from headwise.evaluation.statistics.crossed import FEWEST_SEEDS
from headwise.heads import HeadConfig
from headwise.model.config import PretrainConfig
from headwise.pretraining.recipes import cifar10, demo, small

Budget = Literal["trial", "small", "full"]
"""trial: proves in two minutes that everything runs, and shows nothing. small: 45 minutes on two
cores. full: the papers' setting for small images, on one GPU."""
T = TypeVar("T")

SHAPES = "builtin:shapes"
SIMCLR = "SimCLR (arXiv 2002.05709)"
NOT_RUN = "not run here: one GPU, about {} at 15 s an epoch of CIFAR-10"


def of_budget(budget: Budget, *, trial: T, small: T, full: T) -> T:
    """What a budget has."""
    match budget:
        case "trial":
            return trial
        case "small":
            return small
        case "full":
            return full


def only(preset: str, data: Sequence[str]) -> str | None:
    """The one data set that was given, if any."""
    if len(data) > 1:
        raise UserError(f"{preset} takes one --data; got {len(data)}: {' '.join(data)}")
    return data[0] if data else None


def of_shapes(spec: str | None) -> bool:
    """Whether the built-in shapes are used, which are the default of trial and small."""
    return spec in (None, SHAPES)


def base(budget: Budget, spec: str | None, head: HeadConfig | None = None) -> PretrainConfig:
    """The settings that no axis changes. `spec` None: the images of the budget."""
    head = head or HeadConfig()
    match budget:
        case "trial":
            data = DataConfig(spec=spec or SHAPES, limit=240)
            return replace(_shapes(), data=data, head=head, batch_size=32, epochs=2)
        case "small" if of_shapes(spec):
            return replace(_shapes(), head=head)
        case "small":
            return replace(_photos(spec or SHAPES), head=head)
        case "full":
            data = DataConfig(spec=spec or "torchvision:CIFAR10")
            return replace(cifar10(), data=data, head=head, epochs=200, knn_every=0)


def _shapes() -> PretrainConfig:
    """The demo, under SimCLR's head."""
    return replace(demo(), head=HeadConfig(), knn_every=0, checkpoint_every=1000)


def _photos(spec: str) -> PretrainConfig:
    """The runs of docs/results.md: 5,000 images at 32 px."""
    return replace(
        small(),
        data=DataConfig(spec=spec, limit=5000),
        augment=AugmentConfig(size=32),
        encoder=EncoderConfig(name=SMALL_RESNET, stem="small-strided", widths=(16, 32, 64, 128)),
        batch_size=128,
        epochs=13,
        knn_every=0,
    )


def seeds(budget: Budget) -> int:
    return 2 if budget == "trial" else FEWEST_SEEDS


def measured(*protocols: ProtocolName, taps: tuple[str, ...] = ("h", "z")) -> EvaluateConfig:
    """These protocols, without baselines."""
    return EvaluateConfig(protocols=protocols, taps=taps, baselines=False)


def at_levels(
    table: Mapping[str, Mapping[str, float]], tried: Collection[str]
) -> dict[str, dict[str, float]]:
    """A paper's values at the levels that a budget tries."""
    return {
        line: {level: value for level, value in values.items() if level in tried}
        for line, values in table.items()
    }


def short_name(spec: str) -> str:
    """What a data set is called in tables: `cifar10` of `./cifar10` and `torchvision:CIFAR10`."""
    return Path(spec.rpartition(":")[2]).stem.lower()
