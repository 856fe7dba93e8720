"""The config of a pretraining run, and the model that it describes."""

import dataclasses
import logging
from dataclasses import dataclass, field

from safetensors.torch import load_file

from headwise import augment, checkpoint, encoders, hardware, heads, optim
from headwise.augment import AugmentConfig
from headwise.config import chosen, from_dict
from headwise.convolution import replace_convolutions
from headwise.data import DataConfig, ImageFiles, Images
from headwise.encoders import EncoderConfig
from headwise.errors import UserError
from headwise.hardware import Device, Precision
from headwise.heads import HeadConfig
from headwise.losses import Method
from headwise.model import ContrastiveModel
from headwise.objective import AnchorsConfig, Objective
from headwise.optim import OptimConfig
from headwise.runs import Run

log = logging.getLogger("headwise")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """One pretraining run."""

    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    epochs: int = 100
    """Passes over the images."""
    batch_size: int = 256
    """Images a step, over all ranks; each gives two views."""
    temperature: float = 0.5
    """τ of NT-Xent."""
    objective: Objective = "nt-xent"
    """The contrastive loss: nt-xent, or affinity (TransFusion's: Jensen-Shannon divergence of the
    squared cosines from the twins; no temperature)."""
    anchors: AnchorsConfig = field(default_factory=AnchorsConfig)
    loss: Method = "auto"
    """How NT-Xent is computed; the value is the same."""
    seed: int = 0
    """Of weights, data order and augmentation."""
    device: Device = "auto"
    """auto: a GPU where there is one."""
    precision: Precision = "auto"
    """auto: bfloat16 autocast where the hardware is fast at it, else float32."""
    workers: int | None = None
    """Processes that decode image files; sets in memory need none. None: one a core."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    knn_every: int = 5
    """Epochs between k-NN checks of h on training images, where there are labels; 0: never."""
    checkpoint_every: int = 1
    """Epochs between checkpoints."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    keep_freed_memory: bool = True
    """Have glibc keep freed memory for the next step, which is faster."""
    unfolded_convolutions: bool = True
    """In bfloat16 on CPUs, compute convolutions of few pixels as matrix products: faster."""
    compiled: bool | None = None
    """Compile the encoder with torch.compile for training. None: on NVIDIA GPUs."""

    def __post_init__(self) -> None:
        for name in ("epochs", "log_every", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise UserError(f"{_flag(name)} must be at least 1; got {getattr(self, name)}")
        if self.batch_size < 2:
            raise UserError(
                f"--batch-size must be at least 2, for want of negatives; got {self.batch_size}"
            )
        if self.batch_size < 4 and heads.loss_groups(self.head) > 1:
            raise UserError(
                "--batch-size must be at least 4 with head.context halves, for want of negatives; "
                f"got {self.batch_size}"
            )
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"--temperature must be positive; got {self.temperature}")
        if self.knn_every < 0 or (self.workers is not None and self.workers < 0):
            raise UserError(
                "--knn-every and --workers must not be negative; "
                f"got {self.knn_every} and {self.workers}"
            )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def resolve(config: PretrainConfig, images: Images) -> PretrainConfig:
    """The config with everything chosen that depends on machine and images, but for the head.

    Raises `UserError` where these images cannot be trained on in this way.
    """
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
    views = augment.resolve(config.augment, images)
    device = hardware.resolve_device(config.device)
    workers = config.workers
    if workers is None:
        workers = hardware.usable_cores() if isinstance(images, ImageFiles) else 0
    return dataclasses.replace(
        config,
        augment=views,
        encoder=encoders.resolve(config.encoder, chosen(views.size)),
        optim=optim.resolve(config.optim, config.epochs),
        device=device,
        precision=hardware.resolve_precision(config.precision, device),
        workers=workers,
        compiled=device == "cuda" if config.compiled is None else config.compiled,
    )


def build_model(config: PretrainConfig) -> tuple[PretrainConfig, ContrastiveModel]:
    """The model of a resolved config, with new weights, on the CPU; and the config with the head's
    settings chosen too, for the encoder's `p`."""
    size = chosen(config.augment.size)
    encoder = encoders.build_encoder(config.encoder, size, config.seed)
    p = encoders.representation_size(encoder, config.encoder, size)
    reduced = config.device == "cpu" and config.precision == "bfloat16"
    if reduced and config.unfolded_convolutions:
        replace_convolutions(encoder)
    if reduced and encoders.starves(encoder, size):
        log.warning(
            "images of %d px are down to one pixel before the encoder's last strided convolution, "
            "whose bfloat16 gradient is not reliable on CPUs: using float32; try a larger "
            "--augment.size",
            size,
        )
        config = dataclasses.replace(config, precision="float32")
    head = heads.resolve(config.head, p)
    model = ContrastiveModel(encoder, heads.build_head(head, p, config.seed))
    return dataclasses.replace(config, head=head), model


def load_config(run: Run) -> PretrainConfig:
    """The run's config.json. Raises `UserError` for unknown keys or wrong values."""
    return from_dict(PretrainConfig, run.config, str(run.path / "config.json"))


def load_model(run: Run) -> tuple[PretrainConfig, ContrastiveModel]:
    """Encoder and head of a run with the weights of its last checkpoint, on the CPU."""
    config, model = build_model(load_config(run))
    path = checkpoint.latest(run.path / "checkpoints")
    if path is None:
        raise UserError(f"run {run.path} must have a checkpoint; found none; pretrain it again")
    model.load_state_dict(load_file(path / "model.safetensors"))
    return config, model
