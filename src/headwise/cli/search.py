"""`headwise search`: the images of a table that are most similar to one image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from headwise.cli.flags import Role
from headwise.cli.terminal import say
from headwise.cli.words import CommandLine, Given
from headwise.errors import UserError
from headwise.files import csv_text, plain_text, write_text


@dataclass(frozen=True, kw_only=True)
class Search:
    """Find the images of a table of features that are most similar to one image, by the cosine of
    their h."""

    table: Annotated[Path, Role.POSITIONAL]
    """A table of headwise embed, or a .parquet or .npz with the same columns; h must be there."""
    query: str
    """The image to search for: a path in the table or, with --run, an image file."""
    k: int = 20
    """How many images to find."""
    run: Path | None = None
    """The run whose encoder made the table, or its encoder.safetensors. It encodes a query that is
    not in the table. None: the query must be in the table."""
    images: str | None = None
    """Where the images of the table are, for the sheet. None: where the table says."""
    out: Path | None = None
    """The .csv file to write. A contact sheet is written beside it, as .png. None: neither."""
    threads: int | None = None
    """Threads of torch on the CPU. None: OMP_NUM_THREADS, or else one for each usable core."""


def run(given: Given[Search]) -> None:
    given.need("table")
    command = given.command()
    check_out(command.out)
    from headwise.explore.pictures import open_pictures
    from headwise.explore.search import search, write_search_sheet
    from headwise.explore.table import read_table

    table = read_table(command.table)
    found = search(table, command.query, command.k, command.run)
    rows = [
        (table.names[row], f"{value:.6f}", table.label(row), table.split[row])
        for row, value in zip(found.rows.tolist(), found.similarities.tolist(), strict=True)
    ]
    say(
        *(
            plain_text("  ".join([value, *filter(None, about), name]))
            for name, value, *about in rows
        )
    )
    if command.out is not None:
        write_text(command.out, csv_text(("path", "similarity", "label", "split"), rows))
        say("", f"{command.out}: {len(rows)} images most similar to {plain_text(command.query)}")
        if pictures := open_pictures(table, command.images):
            sheet = command.out.with_suffix(".png")
            write_search_sheet(table, command.query, found, pictures, sheet)
            say(f"{sheet}: contact sheet")


def check_out(out: Path | None) -> None:
    """Raise `UserError` unless a CSV and the sheet beside it can be made."""
    if out is not None and out.suffix != ".csv":
        raise UserError(f"--out must end in .csv; got {out}")
    for path in () if out is None else (out, out.with_suffix(".png")):
        if path.exists():
            raise UserError(f"--out must be new; {path} exists; remove it or choose another")


LINE = CommandLine(
    kind=Search,
    example="headwise search features.parquet --query cats/1.jpg --out similar.csv",
    usual="query k run images out threads",
    run=run,
)
