"""Search: the images of a table that are most similar to one image."""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headwise.augment.contact_sheet import Tile, in_rows, write_contact_sheet
from headwise.errors import UserError
from headwise.explore.neighbours import neighbours
from headwise.explore.pictures import Pictures
from headwise.explore.table import Table
from headwise.model.export import encoder_file, file_digest, load_encoder
from headwise.model.preparation import prepare


class Found(NamedTuple):
    """The rows of a table that are most similar to a query, the most similar first."""

    rows: Int64[Tensor, " k"]
    similarities: Float[Tensor, " k"]


def search(table: Table, query: str, k: int, run: Path | None = None) -> Found:
    """Return the `k` images that are most similar to `query` by the cosine of `h`: a path in the
    table, or an image file that the encoder of `run` encodes. An image is not found by itself.

    Raises `UserError` for a query that is neither, a run whose encoder did not make the table, and
    a `k` that is larger than the table.
    """
    own = None
    if run is not None and not (table.named and query in table.names):
        vector = _encoded(table, query, run)
    else:
        own = table.row(query)
        vector = table.h[own][None]
    most = len(table) - (own is not None)
    if not 1 <= k <= most:
        raise UserError(f"-k must lie in 1..{most:,}, the images that can be found; got {k:,}")
    rows, values = (found[0] for found in neighbours(vector, table.h, len(table) - most + k))
    if own is not None:
        # Among equal rows its own may come later, or not at all.
        kept = (rows != own).nonzero().flatten()[:k]
        rows, values = rows[kept], values[kept]
    return Found(rows, values)


def write_search_sheet(
    table: Table, query: str, found: Found, pictures: Pictures, path: Path
) -> None:
    """Write the query and what was found as a contact sheet."""
    image = pictures(query)
    if image is None and Path(query).is_file():
        from PIL import Image

        image = Image.open(query).convert("RGB")
    tiles = [Tile(image, ("query", query), marked=True)]
    for row, value in zip(found.rows.tolist(), found.similarities.tolist(), strict=True):
        name = table.names[row]
        tiles.append(Tile(pictures(name), (f"{value:.3f} {table.label(row)}", name)))
    write_contact_sheet(in_rows(tiles), path)


@torch.no_grad()
def _encoded(table: Table, image: str, run: Path) -> Float[Tensor, "1 p"]:
    """`h` of an image file by the encoder that made the table."""
    made = table.about.get("encoder_sha256")
    if made is not None and file_digest(encoder_file(run)) != made:
        raise UserError(
            f"--run must be the run whose encoder made {table.path} "
            f"({table.about.get('run')}); {run} has another encoder"
        )
    if not Path(image).is_file():
        table.row(image)
    encoder = load_encoder(run).eval()
    h = encoder(prepare(image, encoder)).float()
    if h.shape[1] != table.h.shape[1]:
        raise UserError(
            f"--run must be the run whose encoder made {table.path}, with h of "
            f"{table.h.shape[1]:,} numbers; the h of {run} has {h.shape[1]:,}"
        )
    return h
