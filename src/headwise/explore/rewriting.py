"""A table of features, written again with more columns."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwise.features.table import ROW_GROUP
from headwise.files import Json, write_atomically

if TYPE_CHECKING:
    import pyarrow as pa


def with_columns(path: Path, columns: Mapping[str, object], about: Json) -> None:
    """Write the table again, atomically, with these columns added or replaced, and with `about`
    added to what `headwise embed` says of it. Memory: a row group."""
    match path.suffix.lower():
        case ".npz":
            with np.load(path) as file:
                arrays: dict[str, Any] = {**{name: file[name] for name in file.files}, **columns}

            def write(temporary: Path) -> None:
                with temporary.open("wb") as file:
                    np.savez(file, **arrays)

        case _:

            def write(temporary: Path) -> None:
                _write_parquet(path, temporary, columns, about)

    write_atomically(path, write, size=2 * path.stat().st_size)


def _write_parquet(path: Path, out: Path, columns: Mapping[str, object], about: Json) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    added = {n: v if isinstance(v, pa.Array) else pa.array(v) for n, v in columns.items()}
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        metadata = {**(schema.metadata or {})}
        said = {**json.loads(metadata.get(b"headwise", b"{}")), **about}
        metadata[b"headwise"] = json.dumps(said).encode()
        writer, row = None, 0
        for batch in file.iter_batches(ROW_GROUP):
            table = pa.Table.from_batches([batch])
            for name, values in added.items():
                table = _with(table, name, values.slice(row, len(batch)))
            table = table.replace_schema_metadata(metadata)
            writer = writer or pq.ParquetWriter(out, table.schema, write_page_index=True)
            writer.write_table(table)
            row += len(batch)
    assert writer is not None, "a table with rows"
    writer.close()


def _with(table: "pa.Table", name: str, values: "pa.Array") -> "pa.Table":
    place = table.schema.get_field_index(name)
    return table.append_column(name, values) if place < 0 else table.set_column(place, name, values)
