"""Opening a trained run: the only way to its model, its images and how they are encoded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headwise.data import DataConfig, Splits, open_images
from headwise.data.account import copies
from headwise.data.split import labelled_splits, test_images
from headwise.errors import UserError
from headwise.model import checkpoint
from headwise.model.build import build_model
from headwise.model.config import ResolvedConfig
from headwise.model.config_file import read_config
from headwise.model.contrastive import ContrastiveModel
from headwise.model.extraction import ExtractConfig, decide_extraction
from headwise.runs.directory import Run
from headwise.runs.sections import DataIdentity
from headwise.runtime import hardware
from headwise.runtime.hardware import Device

Check = Callable[[Splits, str], object]
"""Raises `UserError` if these images, opened by a spec, will not do."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished run, opened to be used."""

    run: Run
    config: ResolvedConfig
    """The settings of pretraining, resolved."""
    model: ContrastiveModel
    """On the device of `extraction`, in evaluation mode."""
    images: Splits
    data: DataIdentity
    """Which images those are."""
    extraction: ExtractConfig


def open_trained(
    run: str | Path | Run,
    data: DataConfig | str | None = None,
    images: Splits | None = None,
    *,
    device: Device = "auto",
    seed: int | None = None,
    workers: int | None = None,
    check: Check | None = None,
) -> Trained:
    """A finished run's model on this machine, the images, and how they are encoded.

    `data` None: the images of pretraining; `images` saves opening them again. The precision is
    that of training on the device of training, and the fast one on another device. `seed` None:
    that of training. `workers` None: one a core if the images are files. `check` gets the images
    and their spec before any image is decoded. Raises `UserError` for an unfinished run and for
    images that cannot be opened.
    """
    run = run if isinstance(run, Run) else Run.open(Path(run))
    config, model = load_model(run)
    if config.keep_freed_memory:
        hardware.keep_freed_memory()
    data = DataConfig(spec=data) if isinstance(data, str) else data or config.data
    images = _open(data, images, check)
    here = hardware.resolve_device(device)
    settings = decide_extraction(
        config.augment,
        images,
        device=here,
        precision=config.precision if here == config.device else "auto",
        workers=workers,
        seed=config.seed if seed is None else seed,
    )
    model.to(here).eval()
    return Trained(
        run=run,
        config=config,
        model=model,
        images=images,
        data=identify(images, data),
        extraction=settings,
    )


def _open(data: DataConfig, images: Splits | None, check: Check | None) -> Splits:
    """What probes may use of these images, checked before any is decoded."""

    def checked(listed: Splits) -> None:
        if check is not None:
            check(labelled_splits(listed), data.spec)

    if images is None:
        return labelled_splits(open_images(data, check=checked))
    checked(images)
    return labelled_splits(images)


def identify(images: Splits, data: DataConfig) -> DataIdentity:
    """Which images these are, opened by `data`: what results on them are known by."""
    train, test = images
    return DataIdentity(
        spec=data.spec,
        fingerprint=test_images(images).fingerprint,
        train_fingerprint=train.fingerprint,
        classes=tuple(train.classes),
        train_images=len(train),
        test_images=None if test is None else len(test),
        copies=copies(images),
        limit=data.limit,
        split=train.split_rule,
    )


def load_config(run: Run) -> ResolvedConfig:
    """The run's config.json. Raises `UserError` for unknown keys or wrong values."""
    return read_config(ResolvedConfig, run.path / "config.json")


def load_model(run: Run) -> tuple[ResolvedConfig, ContrastiveModel]:
    """Encoder and head of a run with the weights of its last checkpoint, on the CPU."""
    config = load_config(run)
    model = build_model(config)
    path = checkpoint.latest(run.path / "checkpoints")
    if path is None:
        raise UserError(f"run {run.path} must have a checkpoint; found none; pretrain it again")
    tensors = checkpoint.weights(path, run)
    try:
        model.load_state_dict(tensors)
    except RuntimeError:
        raise UserError(
            f"{path} must have the weights of the model in config.json; they do not; put the right "
            "checkpoint or config.json back"
        ) from None
    return config, model
