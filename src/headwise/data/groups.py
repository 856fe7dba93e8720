"""Groups: images that belong together, such as frames of one video or slides of one patient. A
group stays in one split, since near copies of training images test nothing."""

import dataclasses
import logging
import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from headwise.data.config import DataConfig
from headwise.data.images import ImageFiles, Images, Splits
from headwise.data.names import Names, digests
from headwise.data.parquet import ParquetSource, column_texts
from headwise.data.split import by_class
from headwise.errors import UserError

logger = logging.getLogger("headwise")


def with_groups(splits: Splits, config: DataConfig) -> Splits:
    """Return the images with their groups, by a pattern on their paths or a column of parquet.
    Images of no group are each a group of their own. Says where groups stand in both splits.

    Raises `UserError` for a pattern that no path has, and for a column that does not exist.
    """
    if config.group_pattern is not None:
        splits = _each(splits, lambda part: _matched(part, config))
        if not any(part is not None and _shares(part) for part in splits):
            example = splits.train.ids[0]
            raise UserError(
                f"--data.group-pattern must find groups in the paths of {config.spec}; "
                f"{config.group_pattern!r} puts no two images together; a path is: {example}"
            )
    elif config.group_column is not None and splits.train.groups is None:
        splits = _each(splits, lambda part: _column(part, config))
    train, test = splits
    if train.groups is not None and test is not None and test.groups is not None:
        both = np.intersect1d(train.groups.numpy(), test.groups.numpy())
        if len(both):
            logger.warning(
                "%s: %s groups have images in training and in test, which were told apart %s; "
                "results on such test images are too high",
                *(config.spec, f"{len(both):,}", train.split_rule),
            )
    return splits


def group_numbers(groups: Sequence[str], ids: Names) -> Int64[Tensor, " n"]:
    """Return a number for each image, equal for images of one group: 64 bits of the group's name,
    or, for those of no group (""), of their own."""
    parts = (
        f"group {group}".encode(errors="surrogateescape") if group else b"image " + id
        for group, id in zip(groups, ids.encoded(), strict=True)
    )
    return torch.from_numpy(digests(parts).view(np.int64))


def split_by_group(
    labels: Int64[Tensor, " n"],
    groups: Int64[Tensor, " n"],
    fraction: float,
    seed: int,
    *,
    purpose: str = "data split",
) -> tuple[Int64[Tensor, " train"], Int64[Tensor, " test"]]:
    """As `split_by_name`, with whole groups: the group of an image decides. About `fraction` of the
    groups with labels is for testing. Each side gets images of every class that has several groups,
    as far as the classes that its groups share allow."""
    names, group = groups.unique(return_inverse=True)
    encoded = (number.tobytes() for number in names.numpy())
    drawn = torch.from_numpy(digests(encoded, f"{purpose} {seed}") / 2.0**64)
    test = drawn < fraction
    test &= torch.zeros(len(names), dtype=torch.bool).index_fill(0, group[labels >= 0], True)
    for _, members in by_class(labels):
        own = group[members].unique()
        if test[own].all():
            test[own[drawn[own].argmax()]] = False
        elif len(own) > 1 and not test[own].any():
            test[own[drawn[own].argmin()]] = True
    tested = test[group]
    return (~tested).nonzero().flatten(), tested.nonzero().flatten()


def _each(splits: Splits, groups_of: Callable[[Images], Sequence[str]]) -> Splits:
    def grouped(images: Images) -> Images:
        numbers = group_numbers(groups_of(images), images.ids)
        return dataclasses.replace(images, groups=numbers)

    train, test = splits
    return Splits(grouped(train), None if test is None else grouped(test))


def _shares(images: Images) -> bool:
    """Whether some group has several images."""
    return images.groups is not None and len(images.groups.unique()) < len(images)


def _matched(images: Images, config: DataConfig) -> list[str]:
    """Return what the pattern finds in each path: its first parentheses, or all that it matches."""
    pattern = re.compile(config.group_pattern or "")
    found = [pattern.search(id) for id in images.ids]
    return [match[pattern.groups and 1] or "" if match else "" for match in found]


def _column(images: Images, config: DataConfig) -> list[str]:
    assert config.group_column is not None, "asked for"
    if not isinstance(images, ImageFiles) or not isinstance(images.source, ParquetSource):
        raise UserError(
            "--data.group-column must be a column of parquet, or of --data.labels; "
            f"{config.spec} has no columns; give --data.group-pattern"
        )
    return column_texts(images.source, images.ids, config.group_column, config.spec)
