"""Labels in a CSV file, in place of what folders say: path, label, and maybe split and group."""

import csv
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from headwise.data.arrays import as_labels
from headwise.data.groups import group_numbers
from headwise.data.images import ImageFiles, Images, Splits, image_files
from headwise.data.parquet_columns import JOINT
from headwise.data.reading import one_line
from headwise.data.split import own_split
from headwise.data.split_names import split_of
from headwise.errors import UserError

SEVERAL = ";"
"""Between the labels of an image that has several."""
_SHOWN = 3


class Row(NamedTuple):
    """What the file says of an image; "" where it says nothing."""

    label: str
    split: str
    group: str


def with_labels(splits: Splits, spec: str, path: str, group_column: str | None) -> Splits:
    """Return the images with the labels, the splits and the groups of a CSV file. An image that it
    does not name has no label. Without a column `split` the splits stay as they are.

    Raises `UserError` for images that are not files, for a file that cannot be read, and for paths
    that the images do not have.
    """
    if not isinstance(splits.train, ImageFiles):
        raise UserError(f"--data.labels is for images in files; got {path} for {spec}")
    rows = _read(Path(path), group_column or "group")
    parts = {name: part for name, part in splits._asdict().items() if part is not None}
    _refuse_unknown(rows, parts, path, spec)
    rule = splits.train.split_rule
    if any(row.split for row in rows.values()):
        parts, rule = _by_split(rows, parts, path), f"by {Path(path).name}"
    grouped = any(row.group for row in rows.values())
    labelled = {name: _labelled(part, rows, path, grouped) for name, part in parts.items()}
    return own_split(labelled, path, rule)


def _read(path: Path, group_column: str) -> dict[str, Row]:
    """Return what the file says, by path."""
    if not path.is_file():
        raise UserError(f"--data.labels must be a CSV file that exists; got {path}")
    rows: dict[str, Row] = {}
    with (
        one_line(f"{path} must be CSV in UTF-8"),
        path.open(encoding="utf-8-sig", newline="") as file,
    ):
        table = csv.DictReader(file, strict=True)
        columns = table.fieldnames or ()
        for name in ("path", "label", *([group_column] if group_column != "group" else [])):
            if name not in columns:
                raise UserError(
                    f"{path} must have a column {name!r}; got {', '.join(columns) or 'nothing'}"
                )
        for cells in table:
            name = cells["path"] or ""
            row = Row(
                _joined(cells["label"] or ""),
                cells.get("split") or "",
                cells.get(group_column) or "",
            )
            if rows.setdefault(os.path.normpath(name), row) != row:
                raise UserError(
                    f"{path} must say one thing of each image; got two rows for {name!r} that "
                    "differ"
                )
    return rows


def _joined(label: str) -> str:
    """The set of an image's labels as one, as in a list of parquet."""
    names = {name.strip() for name in label.split(SEVERAL)} - {""}
    return JOINT.join(sorted(names))


def _refuse_unknown(rows: dict[str, Row], parts: dict[str, Images], path: str, spec: str) -> None:
    known = {id for part in parts.values() for id in part.ids}
    unknown = [name for name in rows if name not in known]
    if unknown:
        named = ", ".join(map(repr, unknown[:_SHOWN])) + ", …" * (len(unknown) > _SHOWN)
        raise UserError(
            f"{path} must name images of {spec}, by their paths in it; {len(unknown):,} of "
            f"{len(rows):,} are not there: {named}; a path is: {next(iter(parts['train'].ids))}"
        )


def _by_split(rows: dict[str, Row], parts: dict[str, Images], path: str) -> dict[str, Images]:
    """Return the images of each split that the file names; those of no split are for training."""
    ids = [id for part in parts.values() for id in part.ids]
    roles = []
    for id in ids:
        said = rows[id].split if id in rows else ""
        role = split_of(said) if said else "train"
        if role is None:
            raise UserError(
                f"{path}: a split must be train, validation or test; got {said!r} for {id}"
            )
        roles.append(role)
    every = _together(list(parts.values()))
    chosen = np.array(roles)
    if "train" not in roles:
        raise UserError(f"{path} must leave images for training; got none")
    return {
        role: every.select(torch.from_numpy((chosen == role).nonzero()[0]))
        for role in sorted({*roles})
    }


def _together(parts: Sequence[Images]) -> ImageFiles:
    """Return the images of several splits of one source as one."""
    first = parts[0]
    assert isinstance(first, ImageFiles), "checked before"
    every = image_files(first.source, [id for part in parts for id in part.ids], None, ())
    return dataclasses.replace(every, left_out=first.left_out)


def _labelled(images: Images, rows: dict[str, Row], path: str, grouped: bool) -> Images:
    nothing = Row("", "", "")
    said = [rows.get(id, nothing) for id in images.ids]
    labels, classes = as_labels(np.array([row.label for row in said], dtype=object), path)
    groups = group_numbers([row.group for row in said], images.ids) if grouped else None
    return dataclasses.replace(images, labels=labels, classes=classes, groups=groups)
