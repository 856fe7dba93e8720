"""Opening a trained run: the only way to its model, its images and how they are encoded."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from headwise.data import (
    DataConfig,
    Given,
    Images,
    Splits,
    as_config,
    given_splits,
    open_images,
)
from headwise.data.account import copies
from headwise.data.record import (
    changes,
    described,
    drawn_otherwise,
    located,
    read_record,
    same_reading,
    same_source,
    seen,
)
from headwise.data.split import labelled_splits, test_images
from headwise.errors import UserError
from headwise.model import checkpoint
from headwise.model.build import build_model
from headwise.model.config import ResolvedConfig
from headwise.model.config_file import read_config
from headwise.model.contrastive import ContrastiveModel
from headwise.model.export import describe_encoder, encoder_file, say_images
from headwise.model.extraction import ExtractConfig, decide_extraction
from headwise.model.own_parts import entrusted
from headwise.runs.directory import Run
from headwise.runs.sections import DataIdentity
from headwise.runtime import hardware
from headwise.runtime.hardware import Device

Check = Callable[[Splits, str], object]
"""Raises `UserError` if these images, opened by a spec, will not do."""

log = logging.getLogger("headwise")


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
    data: DataConfig | str | Path | None = None,
    images: Given | None = None,
    *,
    accept_changed_data: bool = False,
    device: Device = "auto",
    seed: int | None = None,
    workers: int | None = None,
    check: Check | None = None,
) -> Trained:
    """A finished run's model on this machine, the images, and how they are encoded.

    `data` None: the images of pretraining; `images` saves opening images. If those of pretraining
    have changed since, that is an error, unless `accept_changed_data`. The precision is
    that of training on the device of training, and the fast one on another device. `seed` None:
    that of training. `workers` None: one a core if the images are files. `check` gets the images
    and their spec before any image is decoded. Raises `UserError` for an unfinished run and for
    images that cannot be opened.
    """
    run = Run.open(run)
    config, model = read_model(run)
    if config.keep_freed_memory:
        hardware.keep_freed_memory()
    if images is None:
        data = data_of(run, data).like(config.data)
        images = _open(run, data, check, accept=accept_changed_data)
    else:
        data = described(given := given_splits(images), config.data)
        images = _checked(given, data, check)
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
        data=replace(identify(images, data), seen_images=count_seen(run, images.test, data.spec)),
        extraction=settings,
    )


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
        test_on=data.test_on,
        split=train.split_rule,
    )


def data_of(run: Run, given: DataConfig | str | Path | None = None) -> DataConfig:
    """The settings that open images for a run. None: those of pretraining. If a spec names their
    source, the split and the columns are those of pretraining."""
    own, record = load_config(run).data, read_record(run.path)
    if given is None:
        return located(run.path, own)
    config = as_config(given)
    spec = config.spec
    if config is given:
        return config
    if not (spec == own.spec if record is None else same_source(record, spec)):
        return config
    return DataConfig(
        spec=spec,
        test_fraction=own.test_fraction,
        split_seed=own.split_seed,
        validation_fraction=own.validation_fraction,
        test_on=own.test_on,
        image_column=own.image_column,
        label_column=own.label_column,
        labels=own.labels,
        group_column=own.group_column,
        group_pattern=own.group_pattern,
    )


def _checked(images: Splits, data: DataConfig, check: Check | None) -> Splits:
    """What probes may use of these images."""
    labelled = labelled_splits(images)
    if check is not None:
        check(labelled, data.spec)
    return labelled


def _open(run: Run, data: DataConfig, check: Check | None, *, accept: bool) -> Splits:
    """What probes may use of the images for a run, checked before any is decoded. Those of
    pretraining must not have changed, unless `accept`."""
    images = open_unchanged(
        run.path, data, accept=accept, check=lambda listed: _checked(listed, data, check)
    )
    own = data.spec == load_config(run).data.spec
    if own and read_record(run.path) is None and drawn_otherwise(run.path, images):
        log.warning(
            "%s is of version 0.1, which drew other test images: most of today's were among the "
            "images of its pretraining",
            run.path,
        )
    return labelled_splits(images)


def open_unchanged(
    folder: Path,
    data: DataConfig,
    *,
    accept: bool,
    check: Callable[[Splits], object] | None = None,
) -> Splits:
    """The images, which must not have changed, unless `accept`, if they are those of the
    pretraining of the run at `folder`."""
    images, record = open_images(data, check=check), read_record(folder)
    if record is not None and same_reading(record, data):
        some = (data.limit, data.test_on) != (record.data.limit, record.data.test_on)
        refuse_changes(folder, changes(folder, images, some=some), accept=accept)
    return images


def count_seen(run: Run, test: Images | None, where: str) -> int | None:
    """How many of the test images pretraining saw, which is said if there are any. None if it is
    not known."""
    count = None if test is None else seen(run.path, test)
    if test is not None and count:
        log.warning("%s: %s", where, seen_words(count, len(test)))
    return count


def refuse_changes(folder: Path, found: str, *, accept: bool) -> None:
    """Raise `UserError` for the changes that were found; or say them, if they are accepted."""
    if found and accept:
        log.warning("the images of %s have changed since pretraining: %s", folder, found)
    elif found:
        raise UserError(
            f"the images of {folder} must be those of pretraining; they have changed: {found}; "
            "put them back, name others with --data, or take them as they are: "
            "--accept-changed-data"
        )


def seen_words(count: int, n: int) -> str:
    """In words: how many of the test images pretraining saw."""
    return f"{count:,} of {n:,} test images were among the images of pretraining"


def load_config(run: Run) -> ResolvedConfig:
    """The run's config.json, with the own code that the user hands over with the run. Raises
    `UserError` for unknown keys or wrong values."""
    return entrusted(read_config(ResolvedConfig, run.path / "config.json"), run.handed, run.path)


def load_model(run: str | Path | Run) -> ContrastiveModel:
    """The encoder and the head of a finished run, ready for use: in evaluation mode, on the CPU.

    `model.encoder` maps images `[n 3 s s]`, as `prepare` makes them, to `h` `[n p]`, as the encoder
    of `load_encoder` does; `model.head(h, views=1)` gives `z` `[n d]`, and `model.head.taps` every
    tap. The `z` of a head that sees the batch depends on which rows are given together. Raises
    `UserError` for a run that is not finished.
    """
    opened = Run.open(run)
    _, model = read_model(opened)
    say_images(model.encoder, describe_encoder(encoder_file(opened))["image"])
    return model.eval()


def read_model(run: Run) -> tuple[ResolvedConfig, ContrastiveModel]:
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
