"""Images in parquet files, as the Hugging Face hub serves them: a row is an image and a label."""

import bisect
import functools
import io
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from headwise.data.arrays import as_labels
from headwise.data.images import ImageFiles, Images, Splits, fingerprint, image_files
from headwise.data.split import TEST_NAMES, own_split
from headwise.errors import UserError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

LABEL_NAMES = ("label", "labels", "fine_label", "target", "class")
SPLIT_NAME = re.compile(rf"(train|{'|'.join(sorted(TEST_NAMES, reverse=True))})\b")


class Shard(NamedTuple):
    """One parquet file."""

    path: Path
    bytes: int
    mtime_ns: int
    group_starts: tuple[int, ...]
    """The first row of every row group, and at the end the number of rows."""


@dataclass(frozen=True)
class ParquetSource:
    """Ids are shard:row. A read loads the row group of the row; the last two groups stay loaded."""

    shards: dict[str, Shard]
    column: str
    content: str
    stamp: str

    def open(self, id: str) -> io.BufferedIOBase:
        name, _, row = id.rpartition(":")
        shard = self.shards[name]
        group = bisect.bisect_right(shard.group_starts, int(row)) - 1
        rows = _row_group(shard, group, self.column)
        value = rows[int(row) - shard.group_starts[group]].as_py()
        data = value["bytes"] if isinstance(value, dict) else value
        if data is None:
            raise OSError("the row holds no image bytes")
        return io.BytesIO(data)


def list_parquet(
    paths: Sequence[Path], root: Path, image_column: str | None, label_column: str | None
) -> Splits:
    """Return the rows of all shards, in the order of the shards' names. A shard belongs to a split
    if its name, or else its folder's name, begins with train, test, val, valid or validation. If no
    shard belongs to `train`, all shards are training images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    where = str(root)
    shards: dict[str, Shard] = {}
    labels: dict[str, np.ndarray | None] = {}
    try:
        schema = pq.read_schema(paths[0])
        image = _image_column(schema, image_column, where)
        label = _label_column(schema, label_column, where)
        for path in sorted(paths):
            name = path.relative_to(root).as_posix()
            shards[name] = _shard(path)
            labels[name] = None if label is None else _column(path, label)
    except (pa.ArrowException, OSError, KeyError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{where} must hold parquet files of one schema: {line}") from error
    listing = [(name, s.bytes, s.group_starts) for name, s in shards.items()]
    content = ascii((image, listing)).encode()
    stamp = ascii((image, list(shards.values()))).encode()
    source = ParquetSource(shards, image, fingerprint(content), fingerprint(stamp))
    names = None if label is None else _class_names(schema, label)
    splits: dict[str, Images] = {}
    for split, inside in _by_split(list(shards)).items():
        columns = [labels[name] for name in inside]
        splits[split] = _images(source, inside, columns, names, where)
    return own_split(splits, where)


def _shard(path: Path) -> Shard:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
    status = path.stat()
    starts = tuple(itertools.accumulate(groups, initial=0))
    return Shard(path.resolve(), status.st_size, status.st_mtime_ns, starts)


def _column(path: Path, column: str) -> np.ndarray:
    """Return the labels of one shard, integers or strings. A missing integer is -1."""
    import pyarrow.parquet as pq
    import pyarrow.types as types

    values = pq.read_table(path, columns=[column]).column(column)
    return values.fill_null(-1 if types.is_integer(values.type) else "").to_numpy()


@functools.lru_cache(maxsize=2)
def _row_group(shard: Shard, group: int, column: str) -> "pa.ChunkedArray":
    """Return the encoded images of one row group. `shard` holds size and time of the file, so a
    changed file is read again."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(shard.path, memory_map=True) as file:
        # Decoding is already parallel, and Arrow's threads do not survive a fork.
        return file.read_row_group(group, columns=[column], use_threads=False).column(0)


def _by_split(names: list[str]) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    for name in names:
        parts = name.lower().split("/")
        matches = [m for part in reversed(parts) if (m := SPLIT_NAME.match(part))]
        splits.setdefault(matches[0][1] if matches else "", []).append(name)
    return splits if "train" in splits else {"train": names}


def _images(
    source: ParquetSource,
    names: list[str],
    columns: list[np.ndarray | None],
    classes: tuple[str, ...] | None,
    where: str,
) -> ImageFiles:
    ids = [f"{name}:{row}" for name in names for row in range(source.shards[name].group_starts[-1])]
    labels = [column for column in columns if column is not None]
    if not labels:
        return image_files(source, ids, None, ())
    values = np.concatenate(labels)
    if values.dtype.kind in "iu" and len(values) and values.max() < 0:
        return image_files(source, ids, None, ())  # the hub marks a split without labels by −1
    if classes is None:
        return image_files(source, ids, *as_labels(values, where))
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= len(classes):
        raise UserError(f"{where}: every label must be a number from 0 to {len(classes) - 1}")
    return image_files(source, ids, torch.from_numpy(values.astype(np.int64)), classes)


def _image_column(schema: "pa.Schema", column: str | None, where: str) -> str:
    """Return the path of the column with the encoded bytes, such as `image.bytes`."""
    import pyarrow.types as types

    leaves = {}
    for field in schema:
        if types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            leaves[field.name] = f"{field.name}.bytes"
        elif types.is_binary(field.type) or types.is_large_binary(field.type):
            leaves[field.name] = field.name
    if column is not None and column not in leaves:
        raise UserError(f"{where} has no image column {column!r}: {nearest(column, leaves)}")
    if column is None and len(leaves) != 1:
        raise UserError(
            f"{where} must have one column of images; got {len(leaves)} "
            f"({', '.join(leaves)}) among {', '.join(schema.names)}: name it with image_column"
        )
    return leaves[column or next(iter(leaves))]


def _label_column(schema: "pa.Schema", column: str | None, where: str) -> str | None:
    import pyarrow.types as types

    if column is not None and column not in schema.names:
        raise UserError(f"{where} has no column {column!r}: {nearest(column, schema.names)}")
    named = [name for name in (column, *LABEL_NAMES) if name in schema.names]
    integers = [field.name for field in schema if types.is_integer(field.type)]
    if not named and len(integers) > 1:
        raise UserError(
            f"{where} must have one column of labels; got {', '.join(integers)}: "
            "name it with label_column"
        )
    return next(iter(named or integers), None)


def _class_names(schema: "pa.Schema", column: str) -> tuple[str, ...] | None:
    """Return the class names that the hub keeps in the schema's metadata."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    if metadata is None:
        return None
    names = json.loads(metadata).get("info", {}).get("features", {}).get(column, {}).get("names")
    return None if names is None else tuple(names)
