"""Images in parquet files, as the Hugging Face hub serves them: a row is an image and a label."""

import bisect
import io
import itertools
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from headwise.data.arrays import as_labels, signed
from headwise.data.images import ImageFiles, Images, Splits, fingerprint, image_files
from headwise.data.parquet_columns import (
    LabelColumn,
    image_column,
    is_identity,
    label_column,
    one_kind,
    read_labels,
)
from headwise.data.reading import one_line, unreadable
from headwise.data.split import own_split
from headwise.data.split_names import file_splits
from headwise.errors import UserError, nearest

logger = logging.getLogger("headwise")

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

LOADED_BYTES = 2**29
"""A process keeps row groups of up to this many bytes, so that images in random order are not each
read with their whole group. The last two groups stay in any case."""


class Shard(NamedTuple):
    """One parquet file."""

    path: Path
    bytes: int
    mtime_ns: int
    group_starts: tuple[int, ...]
    """The first row of every row group, and at the end the number of rows."""


@dataclass(frozen=True)
class ParquetSource:
    """Ids are shard:row. A read loads the row group of the row (`LOADED_BYTES`)."""

    shards: dict[str, Shard]
    column: str
    content: str
    stamp: str

    def open(self, id: str) -> io.BufferedIOBase:
        name, _, row = id.rpartition(":")
        shard = self.shards[name]
        group = bisect.bisect_right(shard.group_starts, int(row)) - 1
        with unreadable():
            rows = _row_group(shard, group, self.column)
            value = rows[int(row) - shard.group_starts[group]].as_py()
        data = value["bytes"] if isinstance(value, dict) else value
        if data is None:
            raise OSError("the row holds no image bytes")
        return io.BytesIO(data)


def list_parquet(paths: Sequence[Path], root: Path, image: str | None, label: str | None) -> Splits:
    """Return the rows of all shards, in the order of the shards' names. `image` and `label` name
    the columns. A shard belongs to the split that its name or its folder says (`split_names`). If
    none is for training, all shards are training images."""
    import pyarrow.parquet as pq

    where = str(root)
    shards: dict[str, Shard] = {}
    schemas: dict[str, pa.Schema] = {}
    for path in sorted(paths):
        name = path.relative_to(root).as_posix()
        with one_line(f"{path} must be a parquet file"), pq.ParquetFile(path) as file:
            schemas[name], shards[name] = file.schema_arrow, _shard(path, file)
    with one_line(f"{where} must hold parquet files with a readable schema"):
        leaf = image_column(schemas, image, where)
        column = label_column(schemas, label, where)
    labels: dict[str, np.ndarray | None] = dict.fromkeys(shards)
    for name, schema in schemas.items():
        if column is not None and column.name in schema.names:
            with one_line(f"{root / name} must hold readable labels"):
                labels[name] = read_labels(shards[name].path, column, f"{where}/{name}")
    if column is not None:
        one_kind(labels, column, where)
        if is_identity(labels, column, where):
            labels = dict.fromkeys(shards)
    listing = [(name, s.bytes, s.group_starts) for name, s in shards.items()]
    content = ascii((leaf, listing)).encode()
    stamp = ascii((leaf, list(shards.values()))).encode()
    source = ParquetSource(shards, leaf, fingerprint(content), fingerprint(stamp))
    by_split, rule = _by_split(list(shards), where)
    splits: dict[str, Images] = {
        split: _images(source, inside, labels, column, where) for split, inside in by_split.items()
    }
    return own_split(splits, where, rule)


def column_texts(source: ParquetSource, ids: Sequence[str], column: str, where: str) -> list[str]:
    """Return what a column says of each image, as text; "" where it says nothing, or where a file
    lacks the column. Raises `UserError` if all do."""
    import pyarrow.parquet as pq

    texts: dict[str, list[str]] = {}
    columns: dict[str, None] = {}
    for name, shard in source.shards.items():
        with one_line(f"{shard.path} must have a readable column {column!r}"):
            names = pq.read_schema(shard.path).names
            columns |= dict.fromkeys(names)
            if column in names:
                values = pq.read_table(shard.path, columns=[column]).column(0).to_pylist()
                texts[name] = ["" if value is None else str(value) for value in values]
    if not texts:
        raise UserError(f"{where} has no column {column!r}: {nearest(column, columns)}")
    places = (id.rpartition(":") for id in ids)
    return [texts[name][int(row)] if name in texts else "" for name, _, row in places]


def _shard(path: Path, file: "pq.ParquetFile") -> Shard:
    groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
    status = path.stat()
    starts = tuple(itertools.accumulate(groups, initial=0))
    if min(groups, default=0) < 0 or starts[-1] > status.st_size:
        raise ValueError(f"it claims {starts[-1]} rows in {status.st_size} bytes")
    return Shard(path.resolve(), status.st_size, status.st_mtime_ns, starts)


_loaded: "dict[tuple[Shard, int, str], pa.ChunkedArray]" = {}
_loaded_lock = threading.Lock()


def _row_group(shard: Shard, group: int, column: str) -> "pa.ChunkedArray":
    """Return the encoded images of one row group. `shard` holds size and time of the file, so a
    changed file is read again."""
    import pyarrow.parquet as pq

    key = (shard, group, column)
    with _loaded_lock:
        rows = _loaded.pop(key, None)
    if rows is None:
        with pq.ParquetFile(shard.path, memory_map=True) as file:
            # Decoding is already parallel, and Arrow's threads do not survive a fork.
            rows = file.read_row_group(group, columns=[column], use_threads=False).column(0)
    with _loaded_lock:
        _loaded[key] = rows  # the last one is the one used last
        total = sum(one.nbytes for one in _loaded.values())
        while total > LOADED_BYTES and len(_loaded) > 2:
            total -= _loaded.pop(next(iter(_loaded))).nbytes
    return rows


def _by_split(names: list[str], where: str) -> tuple[dict[str, list[str]], str]:
    """Return the shards of each split, and the rule by which they were told apart."""
    found = file_splits([name.removesuffix(".parquet") for name in names], where)
    if found.remark:
        logger.warning("%s: %s", where, found.remark)
    if found.aside:
        logger.warning("%s: not used, beside the splits: %s", where, ", ".join(found.aside))
    if not found.roles:
        return {"train": names}, ""
    splits: dict[str, list[str]] = {}
    for name in names:
        if role := found.roles.get(name.removesuffix(".parquet")):
            splits.setdefault(role, []).append(name)
    return splits, "by file names"


def _images(
    source: ParquetSource,
    names: list[str],
    labels: dict[str, np.ndarray | None],
    column: LabelColumn | None,
    where: str,
) -> ImageFiles:
    rows = {name: source.shards[name].group_starts[-1] for name in names}
    ids = [f"{name}:{row}" for name in names for row in range(rows[name])]
    known = {name: values for name in names if (values := labels[name]) is not None}
    if not known or column is None:
        return image_files(source, ids, None, ())
    for name, found in known.items():
        if len(found) != rows[name]:
            raise UserError(f"{where}/{name} must have {rows[name]} labels; got {len(found)}")
    text = any(values.dtype == object and (values != "").any() for values in known.values())
    missing = np.array("" if text else -1, dtype=object if text else np.int64)
    # Where labels have another type, they are all missing (`one_kind`).
    fits = {name: found for name, found in known.items() if (found.dtype == object) == text}
    values = np.concatenate([fits.get(name, np.full(rows[name], missing)) for name in names])
    if column.classes is None or text:
        minus = not text and signed(labels.values())
        return image_files(source, ids, *as_labels(values, where, signed=minus))
    if values.max(initial=-1) < 0:
        return image_files(source, ids, None, ())  # the hub marks a split without labels by −1
    if values.min() < -1 or values.max() >= len(column.classes):
        raise UserError(
            f"{where}: every label must be a number from 0 to {len(column.classes) - 1}"
        )
    return image_files(source, ids, torch.from_numpy(values), column.classes)
