"""The columns of a file of features: `.parquet` or `.npz`."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from jaxtyping import Float, Int64, Shaped

from headwise.data.reading import one_line
from headwise.errors import UserError
from headwise.files import Json

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Columns = dict[str, np.ndarray]
"""By name; vectors are float32 of two dimensions, text is of the type object."""

_BATCH_ROWS, _BUFFER_BYTES = 1 << 15, 1 << 22


def read_columns(path: Path, flag: str) -> tuple[Columns, Json]:
    """Return the columns of a table, and what `headwise embed` says of it ({} for others).

    Memory: one copy of the vectors, and a batch of rows. Raises `UserError`, which names the `flag`
    that the path was given by, for a file that is not there, and for columns that cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{flag} must be a .parquet or .npz file; {path} does not exist")
    match path.suffix.lower():
        case ".parquet":
            return _parquet(path)
        case ".npz":
            return _npz(path), {}
        case _:
            raise UserError(f"{flag} must end in .parquet or .npz; got {path}")


def first_of(columns: Iterable[str], names: Iterable[str]) -> str | None:
    """Return the first of the `names` that is a column."""
    columns = {*columns}
    return next((name for name in names if name in columns), None)


def check_columns(path: Path, columns: Columns, used: Iterable[str]) -> None:
    """Raise `UserError` unless the `used` columns have rows, all the same number of them, and
    finite vectors."""
    used = {name: columns[name] for name in used}
    lengths = {name: len(array) for name, array in used.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {count:,}" for name, count in lengths.items())
        raise UserError(f"{path} must have as many rows in every column; got {found}")
    if not any(lengths.values()):
        raise UserError(f"{path} must have rows; it has none")
    for name, array in used.items():
        if array.ndim == 2 and len(wrong := _not_finite(array)):
            raise UserError(
                f"{path} must have finite vectors; {name} has NaN or infinity in {len(wrong):,} of "
                f"{len(array):,} rows, first in row {wrong[0]}"
            )


def _not_finite(vectors: Float[np.ndarray, "n p"]) -> Int64[np.ndarray, " k"]:
    """The rows with NaN or infinity. isfinite() of a table would be a quarter of its size."""
    return np.flatnonzero(~(np.isfinite(vectors.min(1)) & np.isfinite(vectors.max(1))))


def _npz(path: Path) -> Columns:
    with one_line(f"{path} must be an .npz file of plain arrays"), np.load(path) as file:
        found = {name: file[name] for name in file.files}
    return {name: _numbers(array) if array.ndim == 2 else array for name, array in found.items()}


def _numbers(array: Shaped[np.ndarray, "n p"]) -> np.ndarray:
    """A 2-D array as float32; one that is not of numbers stays no features."""
    return array.astype(np.float32, copy=False) if array.dtype.kind in "fiu" else array.ravel()


def _parquet(path: Path) -> tuple[Columns, Json]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    must = f"{path} must be a parquet file"
    with one_line(must), pq.ParquetFile(path, buffer_size=_BUFFER_BYTES) as file:
        schema = file.schema_arrow
        about = json.loads((schema.metadata or {}).get(b"headwise", b"{}"))
        columns: Columns = {}
        for field in schema:
            if _holds_vectors(field.type):
                columns[field.name] = _matrix(path, file, field.name)
            elif not pa.types.is_nested(field.type):
                columns[field.name] = _values(file.read([field.name]).column(0))
    return columns, about if isinstance(about, dict) else {}


def _holds_vectors(kind: "pa.DataType") -> bool:
    from pyarrow import types

    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return lists and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type))


def _values(column: "pa.ChunkedArray") -> np.ndarray:
    """A column of numbers or of text. A value that is missing is −1, NaN or ""."""
    import pyarrow as pa

    if pa.types.is_integer(column.type):
        return np.array(column.fill_null(-1), np.int64)
    if pa.types.is_floating(column.type):
        return np.array(column.fill_null(np.nan), np.float64)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column.fill_null("").to_numpy()
    values = ["" if value is None else str(value) for value in column.to_pylist()]
    return np.array(values, object)


def _matrix(path: Path, file: "pq.ParquetFile", name: str) -> Float[np.ndarray, "n p"]:
    """A column of lists, read batch by batch into the place where it stays."""
    import pyarrow.compute as pc

    found = np.empty((0, 0), np.float32)
    row = 0
    # One row group at a time: pyarrow holds the bytes of all groups that it was asked for.
    groups = (
        file.iter_batches(_BATCH_ROWS, columns=[name], row_groups=[i])
        for i in range(file.num_row_groups)
    )
    for batch in itertools.chain.from_iterable(groups):
        lists = batch.column(0)
        sizes = pc.call_function("list_value_length", [lists]).unique().to_pylist()
        if row == 0 and sizes[0] is not None:
            found = np.empty((file.metadata.num_rows, sizes[0]), np.float32)
        if sizes != [found.shape[1]]:
            _unequal(path, name, [*dict.fromkeys([found.shape[1], *sizes])][-2:])
        values = pc.call_function("list_flatten", [lists]).to_numpy(zero_copy_only=False)
        found[row : row + len(lists)] = values.reshape(len(lists), -1)
        row += len(lists)
    return found


def _unequal(path: Path, name: str, sizes: list[int | None]) -> NoReturn:
    some = " and ".join("none" if size is None else str(size) for size in sizes)
    raise UserError(f"{path} must have vectors of one length in {name}; got {some} numbers")
