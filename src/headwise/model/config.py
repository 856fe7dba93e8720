"""The config of a pretraining run, and how its open settings are resolved."""

import logging
from dataclasses import dataclass, field
from typing import Literal

from headwise import augment, heads
from headwise.augment import AugmentConfig, ResolvedAugment
from headwise.config import check_fields, resolved_as
from headwise.data import DataConfig, ImageFiles, Images
from headwise.encoders import build as encoders
from headwise.encoders.build import EncoderConfig, ResolvedEncoder
from headwise.errors import UserError
from headwise.heads import HeadConfig, ResolvedHead
from headwise.losses import Method, Negatives
from headwise.model import optim, start
from headwise.model.objective import (
    LABELLED,
    ClassDirectionsConfig,
    Objective,
    check_size,
    for_images,
    settings_of,
    try_own,
    with_setting,
)
from headwise.model.optim import OptimConfig, ResolvedOptim
from headwise.own_code import OwnCode
from headwise.runtime import hardware
from headwise.runtime.hardware import Device, Precision, ResolvedDevice, ResolvedPrecision

log = logging.getLogger("headwise")

ONLY_ROUNDING = (
    "loss",
    "device",
    "workers",
    "log_every",
    "knn_every",
    "checkpoint_every",
    "keep_checkpoints",
    "keep_freed_memory",
    "unfolded_convolutions",
    "compiled",
)
"""Settings of pretraining that change no result, but for rounding."""

OF_OBJECTIVES = ("normalised", "negatives", "margin", "exclude_group")
"""Settings that only some objectives have, and that keep their defaults with the others."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """One pretraining run."""

    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    epochs: int = 100
    """Passes over the training images."""
    batch_size: int = 256
    """Images in a step, over all ranks. Each image gives two views."""
    temperature: float = 0.5
    """The temperature τ of nt-xent, nt-logistic, dcl and supcon."""
    objective: Objective | Literal["own"] = "nt-xent"
    """The loss. nt-xent: SimCLR's; nt-logistic and margin: those that SimCLR compares with it; dcl:
    nt-xent without the positive in the denominator; supcon: nt-xent with all rows of a class as
    positives; cross-entropy: supervised, z are the logits of the classes; affinity: TransFusion's;
    own: a function of yours, given as --objective FILE:function (docs/own.md). supcon and
    cross-entropy need labels (docs/losses.md)."""
    normalised: bool = True
    """nt-xent, nt-logistic, dcl and supcon: divide each row of z by its length, so that the logits
    are cosines over τ. Off: they are dot products over τ (SimCLR's table 5)."""
    negatives: Negatives = "all"
    """nt-logistic and margin: the negatives of an anchor. all: all rows of other images; semi-hard:
    the most similar one of those that are less similar than the twin."""
    margin: float = 0.5
    """margin: by how much an anchor's cosine to its twin should exceed that to a negative."""
    exclude_group: bool = False
    """nt-xent: images of one group (--data.group-pattern, --data.group-column) are no negatives of
    each other."""
    own_objective: OwnCode | None = None
    """own: the function, FILE:FUNCTION, that takes the z of both views and its settings and returns
    the loss. --objective takes it too."""
    class_directions: ClassDirectionsConfig = field(default_factory=ClassDirectionsConfig)
    loss: Method = "auto"
    """How NT-Xent is computed; the value is the same. dense: one matrix of all logits; tiled: in
    tiles, with less memory; fused: a Triton kernel on NVIDIA GPUs. auto: by batch size and
    device."""
    seed: int = 0
    """Seed of the weights, the data order and the augmentation."""
    device: Device = "auto"
    """The device to train on. auto: a GPU if there is one."""
    precision: Precision = "auto"
    """The precision of encoder and head. auto: bfloat16 autocast if the hardware is fast at it,
    otherwise float32."""
    workers: int | None = None
    """Processes that decode image files. None: one for each core; none if the images are in
    memory."""
    log_every: int = 20
    """Steps between two lines of metrics.jsonl."""
    knn_every: int = 5
    """Epochs between two k-NN evaluations of h on training images, if there are labels. 0:
    never."""
    checkpoint_every: int = 1
    """Epochs between two checkpoints."""
    keep_checkpoints: int = 2
    """Number of newest checkpoints that are kept."""
    keep_freed_memory: bool = True
    """Keep freed memory for the next step instead of returning it to the system, which is faster
    (Linux with glibc)."""
    unfolded_convolutions: bool = True
    """In bfloat16 on a CPU, compute convolutions of few pixels as matrix products, which is
    faster."""
    compiled: bool | None = None
    """Train with an encoder that torch.compile has compiled. None: on NVIDIA GPUs only."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.own_objective is not None:
            object.__setattr__(self, "objective", "own")
        elif self.objective == "own":
            raise UserError(
                "objective own needs a function; got none; give --objective FILE:function"
            )
        for name in ("epochs", "log_every", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise UserError(f"{_flag(name)} must be at least 1; got {getattr(self, name)}")
        if self.batch_size < 2:
            raise UserError(
                f"--batch-size must be at least 2, to have negatives; got {self.batch_size}"
            )
        if self.batch_size < 4 and heads.loss_groups(self.head) > 1:
            raise UserError(
                "--batch-size must be at least 4 with head.context halves, to have negatives; "
                f"got {self.batch_size}"
            )
        for name in ("temperature", "margin"):
            if not 0 < vars(self)[name] < float("inf"):
                raise UserError(f"--{name} must be positive; got {vars(self)[name]}")
        self._refuse_idle()
        if self.knn_every < 0 or (self.workers is not None and self.workers < 0):
            raise UserError(
                "--knn-every and --workers must not be negative; "
                f"got {self.knn_every} and {self.workers}"
            )

    def _refuse_idle(self) -> None:
        """Raise `UserError` for settings that the objective does not use."""
        for name in OF_OBJECTIVES:
            value, default = vars(self)[name], vars(PretrainConfig)[name]
            if value != default and name not in settings_of(self.objective):
                raise UserError(
                    f"{_flag(name)} has an effect only with {with_setting(name)}; got {value} "
                    f"instead of {default}; leave it out"
                )
        if self.objective in LABELLED and self.class_directions.fraction:
            raise UserError(
                f"--objective {self.objective} already uses all labels; got "
                f"--class-directions.fraction {self.class_directions.fraction}; leave one out"
            )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig(PretrainConfig):
    """A `PretrainConfig` in which nothing is left open: what training, evaluation and export take,
    and what config.json holds."""

    augment: ResolvedAugment
    encoder: ResolvedEncoder
    head: ResolvedHead
    optim: ResolvedOptim
    device: ResolvedDevice
    precision: ResolvedPrecision
    workers: int
    compiled: bool


def resolve(config: PretrainConfig, images: Images) -> ResolvedConfig:
    """The config with everything decided that depends on the machine and the images.

    Raises `UserError` if these images cannot be trained on in this way.
    """
    check_count(config, images)
    views, encoder = _with_start(config, images)
    device = hardware.resolve_device(config.device)
    precision = hardware.resolve_precision(config.precision, device)
    unfolded = device == "cpu" and precision == "bfloat16" and config.unfolded_convolutions
    p, reliable = encoders.measure_encoder(encoder, views.size, unfolded=unfolded)
    if device == "cpu" and precision == "bfloat16" and not reliable:
        log.warning(
            "images of %d px are down to one pixel before the encoder's last strided convolution, "
            "whose bfloat16 gradient is not reliable on CPUs: using float32; try a larger "
            "--augment.size",
            views.size,
        )
        precision = "float32"
    head = heads.resolve(for_images(config.objective, config.head, images), p)
    check_size(config.objective, head.output_size or p, images)
    if config.own_objective is not None:
        try_own(config.own_objective, head.output_size or p)
    workers = config.workers
    if workers is None:
        workers = hardware.usable_cores() if isinstance(images, ImageFiles) else 0
    elif workers and not isinstance(images, ImageFiles):
        log.warning("--workers %d has no effect: the images are in memory, decoded", workers)
    decided = {
        "data": config.data.like(DataConfig(fit="crop")),
        "augment": views,
        "encoder": encoder,
        "head": head,
        "optim": optim.resolve(config.optim, config.epochs),
        "device": device,
        "precision": precision,
        "workers": workers,
        "compiled": device == "cuda" if config.compiled is None else config.compiled,
    }
    return resolved_as(ResolvedConfig, config, decided)


def _with_start(config: PretrainConfig, images: Images) -> tuple[ResolvedAugment, ResolvedEncoder]:
    """Views and encoder, where start weights decide what is open of both."""
    if not start.is_open(config.encoder.weights):
        views = augment.resolve(config.augment, images)
        return views, encoders.resolve(config.encoder, views.size)
    weights = start.open_weights(config.encoder)
    encoder, views = weights.settings(config.encoder, config.augment)
    decided = augment.resolve(views, images)
    resolved = encoders.resolve(encoder, decided.size)
    return decided, start.pinned(weights, resolved, decided.size)


def check_count(config: PretrainConfig, images: Images) -> None:
    """Raise `UserError` if there are too few training images, decoded or not."""
    if len(images) < 2:
        raise UserError(
            f"pretraining needs at least 2 images; {config.data.spec} has {len(images)}"
        )
    if config.batch_size > len(images):
        raise UserError(
            "--batch-size must be at most the number of training images; "
            f"got {config.batch_size} for {len(images)}; "
            f"try --batch-size {max(2, len(images) // 2)}"
        )
