"""The table for other programs: what embedding-atlas and TensorBoard's projector read."""

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headwise.errors import UserError
from headwise.explore.map import map_columns
from headwise.explore.neighbours import neighbours
from headwise.explore.rewriting import with_columns
from headwise.explore.table import Table, read_table
from headwise.explore.thumbnails import Thumbnails, from_column, largest_side, on_sheet
from headwise.files import write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("headwise")

_LARGEST_SPRITE_PX = 8192
"""What the projector's WebGL takes."""


def complete(path: Path, *, map: bool, neighbors: int | None) -> None:
    """Add to the table its map (`x`, `y`) and the nearest `neighbors` of every row: their rows,
    counted from 0, and their distances, 1 minus the cosine similarity."""
    table = read_table(path)
    columns: dict[str, object] = {}
    about = {}
    if neighbors is not None and neighbors >= len(table):
        neighbors = len(table) - 1
        log.warning("%s: each row has only %s neighbours, all others", path, f"{neighbors:,}")
    if neighbors:
        columns["neighbors"] = _neighbours(table, neighbors)
    if map:
        places, about["map"] = map_columns(table)
        columns |= places
    with_columns(path, columns, about)


def _neighbours(table: Table, k: int) -> "pa.Array":
    import pyarrow as pa

    rows, similar = neighbours(table.h, table.h, k, other=True)
    starts = pa.array(np.arange(0, len(rows) * k + 1, k, dtype=np.int32))
    ids = pa.ListArray.from_arrays(starts, pa.array(rows.flatten().numpy()))
    far = (1 - similar).clamp(min=0).flatten().numpy()
    distances = pa.ListArray.from_arrays(starts, pa.array(far))
    return pa.StructArray.from_arrays([ids, distances], ["ids", "distances"])


def write_projector(path: Path) -> Path:
    """Write the files of TensorBoard's projector into a folder beside the table; the folder. With
    thumbnails in the table, a sprite too. Raises `UserError` where the folder exists."""
    table, folder = read_table(path), projector_folder(path)
    found = from_column(table)
    columns = {"path": table.names, "label": [table.label(i) for i in range(len(table))]}
    columns["split"] = table.split

    def write(temporary: Path) -> None:
        temporary.mkdir()
        vectors = ("\t".join(f"{value:.6g}" for value in row) for row in table.h.tolist())
        (temporary / "h.tsv").write_text("\n".join(vectors) + "\n")
        lines = [
            "\t".join(columns),
            *("\t".join(map(_cell, row)) for row in zip(*columns.values(), strict=True)),
        ]
        (temporary / "metadata.tsv").write_text("\n".join(lines) + "\n")
        sprite = "" if found is None else _write_sprite(found, temporary / "sprite.png")
        (temporary / "projector_config.pbtxt").write_text(
            'embeddings {\n  tensor_name: "h"\n  tensor_path: "h.tsv"\n'
            f'  metadata_path: "metadata.tsv"\n{sprite}}}\n'
        )

    write_atomically(folder, write)
    return folder


def projector_folder(path: Path) -> Path:
    """The place of the projector's files. Raises `UserError` if it is taken."""
    folder = path.with_name(f"{path.stem}.projector")
    if folder.exists():
        raise UserError(
            f"{folder} must be a new folder; it exists; remove it or choose another --out"
        )
    return folder


def _write_sprite(found: Thumbnails, path: Path) -> str:
    """The thumbnails in the rows' order, as many in a row as there are rows; what the
    configuration says of them."""
    across = math.ceil(math.sqrt(len(found)))
    px = min(largest_side(found, _LARGEST_SPRITE_PX), max(1, _LARGEST_SPRITE_PX // across))
    on_sheet(found, range(len(found)), px, across=across).save(path)
    size = f"single_image_dim: {px} single_image_dim: {px}"
    return f'  sprite {{ image_path: "{path.name}" {size} }}\n'


def _cell(value: object) -> str:
    """Text without what ends a cell."""
    return " ".join(str(value).split()) or " "
