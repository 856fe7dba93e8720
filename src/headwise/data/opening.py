"""Open a spec as images: this module combines sources, splits and limits."""

import dataclasses
import glob
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from jaxtyping import Int64
from torch import Tensor

from headwise.data.account import cut_away, left_out, reading, unequal_shares
from headwise.data.archive import list_zip
from headwise.data.arrays import open_npz
from headwise.data.builtin import open_builtin
from headwise.data.config import DataConfig, Fit, as_config
from headwise.data.decode import fitted
from headwise.data.groups import split_by_group, with_groups
from headwise.data.images import ImageFiles, Images, ResidentImages, Splits, resident_images
from headwise.data.labels_file import with_labels
from headwise.data.layout import EXTENSIONS
from headwise.data.listing import kept_listing, list_folder
from headwise.data.marks import marks_of
from headwise.data.parquet import list_parquet
from headwise.data.resident import DecodeSettings, decode_into_memory
from headwise.data.split import limited, split_by_name, stratified_split
from headwise.data.torchvision_sets import open_torchvision
from headwise.errors import UserError, nearest
from headwise.runtime import distributed, hardware

logger = logging.getLogger("headwise")

FORMS = (
    "builtin:shapes",
    "builtin:digits",
    "torchvision:CIFAR10",
    "a folder of images",
    "FILE.zip",
    "FILE.npz",
    "FILE.parquet or a folder or a glob of them",
)


Check = Callable[[Splits], object]
"""Raises `UserError` if these images will not do."""


def open_images(
    config: DataConfig | str | Path, workers: int | None = None, *, check: Check | None = None
) -> Splits:
    """Return the images of `config` (or of a spec), split and limited before any is decoded.

    `check` gets them before any is decoded. `workers` threads decode; the default is one per core
    that this process may use. With several ranks, the first rank of each host decodes, and the
    others read its cache. Raises `UserError`.
    """
    config = as_config(config)
    workers = workers or hardware.usable_cores()
    if distributed.world_size() == 1 or not config.cache:
        return _open(config, workers, check)
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    if not first:
        distributed.barrier()
        return _open(config, workers, check)
    try:
        return _open(config, workers, check)
    finally:
        distributed.barrier()


def _open(config: DataConfig, workers: int, check: Check | None) -> Splits:
    splits = _source(config)
    if config.labels is not None:
        splits = with_labels(splits, config.spec, config.labels, config.group_column)
    train, test = with_groups(splits, config)
    if test is None and len(train) and train.labels is not None and config.test_fraction > 0:
        train, test = _drawn(train, train.labels, config)
    elif config.test_fraction > 0:
        why = "has no labels" if test is None else "has a test split of its own"
        _say_undrawn(config, why)
    if config.validation_fraction:
        train, validation = _held_out(train, config)
        test = validation if config.test_on == "validation" else test
    for line in (reading(Splits(train, test), config.spec), left_out(Splits(train, test))):
        if line and distributed.rank() == 0:
            logger.info("%s", line)
    fit = config.fit or "crop"
    if fit == "crop" and (line := cut_away(train)):
        logger.warning("%s: %s", config.spec, line)
    settings = DecodeSettings(
        fit=fit,
        resize=config.resize,
        resident_mib=config.resident_mib,
        max_bad_fraction=config.max_bad_fraction,
        cache=config.cache,
        workers=workers,
    )
    train = limited(train, config.limit)
    test = None if test is None else limited(test, config.limit)
    if check is not None:
        check(Splits(train, test))
    train = _decoded(train, settings, f"{config.spec} (train)")
    if test is not None:
        test = _decoded(test, settings, f"{config.spec} (test)")
    splits = Splits(train, test)
    if line := unequal_shares(splits):
        logger.warning("%s: %s", config.spec, line)
    opened = config.findable()
    train = dataclasses.replace(train, opened=opened)
    return Splits(train, None if test is None else dataclasses.replace(test, opened=opened))


def _drawn(images: Images, labels: Int64[Tensor, " n"], config: DataConfig) -> Splits:
    """Return the images as training images and a drawn test split."""
    fraction, seed = config.test_fraction, config.split_seed
    if config.spec.startswith("builtin:"):
        # No image ever joins a built-in set, so its split has no need to follow names.
        index, test_index = stratified_split(labels, fraction, seed)
    elif images.groups is not None:
        index, test_index = split_by_group(labels, images.groups, fraction, seed)
    else:
        index, test_index = split_by_name(labels, images.ids, fraction, seed)
    if not len(test_index):
        return Splits(images, None)
    of = "every class" if images.groups is None else "the groups"
    images = dataclasses.replace(
        images, split_rule=f"drawn, about {fraction:g} of {of}, seed {seed}"
    )
    test = dataclasses.replace(images.select(test_index), left_out=())
    return Splits(images.select(index), test)


def _held_out(images: Images, config: DataConfig) -> Splits:
    """Return the training images without the validation images, and those."""
    fraction, seed, labels = config.validation_fraction, config.split_seed, images.labels
    if labels is None:
        raise UserError(
            f"data.validation_fraction must be 0 for images without labels; got {fraction:g} for "
            f"{config.spec}"
        )
    rule = f"validation: about {fraction:g} of the training images of every class, seed {seed}"
    rule = "; ".join(filter(None, (images.split_rule, rule)))
    images = dataclasses.replace(images, split_rule=rule)
    purpose = "validation split"
    if images.groups is None:
        index, held_out = split_by_name(labels, images.ids, fraction, seed, purpose=purpose)
    else:
        index, held_out = split_by_group(labels, images.groups, fraction, seed, purpose=purpose)
    validation = dataclasses.replace(images.select(held_out), left_out=())
    return Splits(images.select(index), validation)


def _decoded(images: Images, settings: DecodeSettings, where: str) -> Images:
    if isinstance(images, ImageFiles):
        return decode_into_memory(images, settings, where)
    return _squares(images, settings.resize, settings.fit)


def _squares(images: ResidentImages, size: int | None, fit: Fit) -> ResidentImages:
    height, width = images.pixels.shape[2:]
    if (size is None and fit == "crop") or height == width == (size or height):
        return images
    pictures = (PIL.Image.fromarray(p.permute(1, 2, 0).numpy()) for p in images.pixels)
    pixels = np.stack([np.asarray(fitted(picture, size, fit)) for picture in pictures])
    resized = resident_images(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        images.labels,
        images.classes,
        images.ids,
        factors=images.factors,
    )
    return dataclasses.replace(resized, marks=marks_of(images), groups=images.groups)


def _source(config: DataConfig) -> Splits:
    """Return all images of the source, with its own split if it has one. Files are not yet read."""
    kind, _, name = config.spec.partition(":")
    match kind:
        case "builtin":
            _say_unused(config, True)
            return open_builtin(name, config.limit)
        case "torchvision":
            _say_unused(config, True)
            return open_torchvision(name)
    try:
        return _from_disk(Path(config.spec).expanduser(), config)
    except OSError as error:
        raise UserError(f"{config.spec} cannot be read: {error}") from error


def _from_disk(path: Path, config: DataConfig) -> Splits:
    if path.is_dir():
        return _from_folder(path, config)
    _say_unused(config, path.suffix.lower() in (".zip", ".npz"))
    if not path.exists():
        tables = sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not tables or any(table.suffix != ".parquet" for table in tables):
            raise UserError(
                f"data.spec must be a path that exists (globs are for .parquet) or a known name; "
                f"got {config.spec!r}: {nearest(config.spec, FORMS)}"
            )
        root = Path(os.path.commonpath([table.parent for table in tables]))
        return list_parquet(tables, root, config.image_column, config.label_column)
    match path.suffix.lower():
        case ".zip":
            return list_zip(path)
        case ".npz":
            return open_npz(path)
        case ".parquet":
            return list_parquet([path], path.parent, config.image_column, config.label_column)
    raise UserError(f"{path} must be a folder, or end in .zip, .npz or .parquet")


def _from_folder(path: Path, config: DataConfig) -> Splits:
    """Look for parquet files where the hub puts them, then for images, then for parquet files in
    any subfolder."""
    splits = kept_listing(path) if config.cache else None
    if splits is not None:
        _say_unused(config, True)
        return splits
    tables = [*path.glob("*.parquet"), *path.glob("data/*.parquet")]
    if not tables:
        splits = list_folder(path, keep=config.cache)
        if splits is not None:
            _say_unused(config, True)
            return splits
        tables = [*path.rglob("*.parquet")]
    if not tables:
        raise UserError(f"{path} holds no images; files must end in {', '.join(EXTENSIONS)}")
    return list_parquet(sorted(tables), path, config.image_column, config.label_column)


def _say_undrawn(config: DataConfig, why: str) -> None:
    """Warn if it was said how test images are drawn, and none are."""
    plain = DataConfig()
    drawn = config.test_fraction, config.split_seed
    if drawn != (plain.test_fraction, plain.split_seed):
        logger.warning(
            "%s %s: no test images are drawn, and test_fraction %g and split_seed %d are not used",
            config.spec,
            why,
            *drawn,
        )


def _say_unused(config: DataConfig, unused: bool) -> None:
    """Warn if columns of parquet tables were named and `unused`."""
    for name, column in (("image", config.image_column), ("label", config.label_column)):
        if unused and column is not None:
            logger.warning("%s is not parquet: %s_column %s is not used", config.spec, name, column)
