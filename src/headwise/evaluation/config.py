"""The protocols by name, and the settings of `headwise evaluate`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from headwise.config import check_fields, to_dict
from headwise.errors import UserError, nearest
from headwise.evaluation.protocols.cluster import CLUSTER, cluster
from headwise.evaluation.protocols.description import Description, Protocol
from headwise.evaluation.protocols.factors import FACTORS, factors
from headwise.evaluation.protocols.finetune import FINETUNE, FinetuneConfig, finetune
from headwise.evaluation.protocols.forgetting import (
    FORGETTING,
    ForgettingConfig,
    forgetting,
)
from headwise.evaluation.protocols.geometry import (
    GEOMETRY,
    between_taps,
    between_twins,
    geometry,
)
from headwise.evaluation.protocols.knn import (
    KNN,
    KNN_SELF,
    KNN_WEIGHTED,
    knn,
    knn_self,
    knn_weighted,
)
from headwise.evaluation.protocols.leakage import LEAKAGE, leakage
from headwise.evaluation.protocols.linear import LINEAR, LINEAR_10, linear
from headwise.evaluation.protocols.linear_sgd import LINEAR_SGD, LinearSgdConfig, linear_sgd
from headwise.evaluation.protocols.robustness import ROBUSTNESS, RobustnessConfig, robustness
from headwise.evaluation.protocols.semi import SEMI, SemiConfig, semi
from headwise.evaluation.protocols.transfer import TRANSFER, TransferConfig, transfer
from headwise.evaluation.protocols.transformations import (
    TRANSFORMATIONS,
    TransformationsConfig,
    transformations,
)
from headwise.runs.results import Value
from headwise.runtime.hardware import Device

ProtocolName = Literal[
    "knn",
    "knn_weighted",
    "knn_self",
    "linear",
    "linear_10",
    "linear_sgd",
    "cluster",
    "semi",
    "finetune",
    "forgetting",
    "transfer",
    "transformations",
    "factors",
    "geometry",
    "leakage",
    "robustness",
]
PROTOCOLS: tuple[ProtocolName, ...] = get_args(ProtocolName)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is measured, at which taps, and with how many seeds."""

    protocols: tuple[ProtocolName | Literal["all"], ...] = ("knn", "linear")
    """What to measure (docs/protocols.md). all: everything that the images, the head and the
    transfer targets allow."""
    taps: tuple[str, ...] = ("h", "z")
    """Where to measure. h: the representation; z: the projection; g1, g2, …: after a layer of the
    head; f1, f2, …: after a stage of the encoder. all: all of these."""
    seeds: int = 1
    """Number of evaluations, with the seeds --seed, --seed + 1 and so on. With more than one,
    results have standard deviations."""
    seed: int = 0
    """Seed of validation splits, label subsets, transformations and the order of images in
    batches."""
    baselines: bool = True
    """Also measure raw pixels, the untrained encoder and the start weights, for comparison."""
    against: Path | None = None
    """Another finished run, whose results on the same test images are compared image by image."""
    device: Device = "auto"
    """The device to run on. auto: a GPU if there is one."""
    linear_sgd: LinearSgdConfig = field(default_factory=LinearSgdConfig)
    semi: SemiConfig = field(default_factory=SemiConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    forgetting: ForgettingConfig = field(default_factory=ForgettingConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    transformations: TransformationsConfig = field(default_factory=TransformationsConfig)
    robustness: RobustnessConfig = field(default_factory=RobustnessConfig)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.seeds < 1:
            raise UserError(f"--seeds must be at least 1; got {self.seeds}")
        if not self.protocols or not self.taps:
            raise UserError("--protocols and --taps must name at least one each; got none")


def protocol(name: str, config: EvaluateConfig) -> Protocol:
    """A protocol with its settings. Raises `UserError` for a name that is not known."""
    match name:
        case "knn":
            return Protocol(KNN, lambda t: knn(*t.features, num_classes=t.num_classes))
        case "knn_weighted":
            probe = knn_weighted
            return Protocol(KNN_WEIGHTED, lambda t: probe(*t.features, num_classes=t.num_classes))
        case "knn_self":
            return Protocol(KNN_SELF, lambda t: knn_self(*t.features))
        case "linear":
            return Protocol(LINEAR, lambda t: linear(*t.features, seed=t.seed))
        case "linear_10":
            return Protocol(LINEAR_10, lambda t: linear(*t.features, seed=t.seed, fraction=0.1))
        case "linear_sgd":
            return _on_model(LINEAR_SGD, linear_sgd, config.linear_sgd)
        case "cluster":
            return Protocol(CLUSTER, lambda t: cluster(*t.features, seed=t.seed))
        case "semi":  # `steps` tells its epochs apart
            return _on_model(SEMI, semi, config.semi, "fractions", "epochs")
        case "finetune":
            return _on_model(FINETUNE, finetune, config.finetune, "taps")
        case "forgetting":
            return _forgetting(config)
        case "transfer":
            return _on_model(TRANSFER, transfer, config.transfer, "targets", "finetune")
        case "transformations":
            return _on_model(TRANSFORMATIONS, transformations, config.transformations, "untrained")
        case "factors":
            return Protocol(
                FACTORS, lambda t: factors(t.tap, t.shown, t.train, t.test, seed=t.seed)
            )
        case "geometry":
            return Protocol(
                GEOMETRY, lambda t: geometry(*t.features, seed=t.seed), between_taps, between_twins
            )
        case "leakage":
            return Protocol(LEAKAGE, on_model=leakage)
        case "robustness":
            return _on_model(ROBUSTNESS, robustness, config.robustness, "strengths")
    raise UserError(f"--protocols must be known; got {name!r}; {nearest(name, PROTOCOLS)}")


def _on_model(
    description: Description, measure: Callable[..., Iterator[Value]], config: Any, *which: str
) -> Protocol:
    """A protocol with a config, in which the fields `which` only say what is measured."""
    asked = {name: value for name, value in to_dict(config).items() if name not in which}
    return Protocol(description, on_model=partial(measure, config=config), asked=asked)


def _forgetting(config: EvaluateConfig) -> Protocol:
    measure = partial(forgetting, training=config.finetune)
    known = _on_model(FORGETTING, measure, config.forgetting, "targets")
    return replace(known, asked={**known.asked, "finetune": to_dict(config.finetune)})


def describe(name: str) -> Description:
    """What a protocol says of itself. Raises `UserError` for a name that is not known."""
    return protocol(name, EvaluateConfig()).description
