"""What to evaluate, and how: the settings of `headwise evaluate`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from headwise.errors import UserError
from headwise.evaluation.protocols.finetune import FinetuneConfig
from headwise.evaluation.protocols.linear_sgd import LinearSgdConfig
from headwise.evaluation.protocols.robustness import RobustnessConfig
from headwise.evaluation.protocols.semi import SemiConfig
from headwise.evaluation.protocols.transfer import TransferConfig
from headwise.evaluation.protocols.transformations import TransformationsConfig
from headwise.runtime.hardware import Device

Protocol = Literal[
    "knn",
    "knn_weighted",
    "knn_self",
    "linear",
    "linear_10",
    "linear_sgd",
    "cluster",
    "semi",
    "finetune",
    "transfer",
    "transformations",
    "factors",
    "geometry",
    "leakage",
    "robustness",
]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is measured, at which taps, how often."""

    protocols: tuple[Protocol | Literal["all"], ...] = ("knn", "linear")
    """What to measure (docs/protocols.md); all: everything that these images, this head and these
    targets allow."""
    taps: tuple[str, ...] = ("h", "z")
    """h, z, g1, g2, … after a layer of the head, f1, f2, … after a stage of the encoder; all."""
    seeds: int = 1
    """Evaluations with seeds from --seed on; more than one gives standard deviations."""
    seed: int = 0
    """Of validation splits, label subsets, transformations and of the order in which images share
    batches."""
    baselines: bool = True
    """Also measure raw pixels and the untrained encoder."""
    against: Path | None = None
    """Another finished run: every value is compared with its own, image by image."""
    device: Device = "auto"
    """auto: a GPU where there is one."""
    linear_sgd: LinearSgdConfig = field(default_factory=LinearSgdConfig)
    semi: SemiConfig = field(default_factory=SemiConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    transformations: TransformationsConfig = field(default_factory=TransformationsConfig)
    robustness: RobustnessConfig = field(default_factory=RobustnessConfig)

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise UserError(f"--seeds must be at least 1; got {self.seeds}")
        if not self.protocols or not self.taps:
            raise UserError("--protocols and --taps must name at least one each; got none")
