"""`headwise select`: the images that are to be labelled next."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from headwise.cli.flags import Role
from headwise.cli.search import check_out
from headwise.cli.terminal import say
from headwise.cli.words import CommandLine, Given
from headwise.files import csv_text, plain_text, write_text


@dataclass(frozen=True, kw_only=True)
class Select:
    """Choose the images of a table to label next, with a reason for each: images without a label,
    test images left out. In a table where every image has a label, labels are ignored."""

    table: Annotated[Path, Role.POSITIONAL]
    """A table of headwise embed, or a .parquet or .npz with the same columns; h must be there."""
    n: int = 100
    """How many images to choose."""
    how: Literal["typical", "diverse", "outlier", "uncertain", "random"] = "typical"
    """typical: from each of n clusters the most typical image. diverse: images far from all that
    are labelled or chosen. outlier: images far from their neighbours. uncertain: images between two
    classes, by a probe on the labels that there are. random: drawn."""
    images: str | None = None
    """Where the images of the table are, for the sheet. None: where the table says."""
    out: Path | None = None
    """The .csv file to write, with an empty column label to fill in. A contact sheet is written
    beside it, as .png. None: neither."""
    seed: int = 0
    """Seed of clusters and of what is drawn."""
    threads: int | None = None
    """Threads of torch on the CPU. None: OMP_NUM_THREADS, or else one for each usable core."""


def run(given: Given[Select]) -> None:
    given.need("table")
    command = given.command()
    check_out(command.out)
    from headwise.augment.contact_sheet import Tile, in_rows, write_contact_sheet
    from headwise.explore.pictures import open_pictures
    from headwise.explore.selection import select
    from headwise.explore.table import candidates, read_table

    table = read_table(command.table)
    rows, labels = candidates(table)
    chosen = select(
        table.h[rows],
        command.n,
        command.how,
        labels=labels,
        names=lambda row: table.names[rows[row]],
        seed=command.seed,
    )
    found = [(table.names[rows[one.row]], one) for one in chosen]
    if command.out is None:
        say(*(plain_text(f"{name}  {one.reason}") for name, one in found))
        return
    header = ("path", "label", "how", "score", "reason")
    cells = [(n, "", command.how, f"{one.score:.6f}", one.reason) for n, one in found]
    write_text(command.out, csv_text(header, cells))
    say(f"{command.out}: {len(found)} of {len(table):,} images to label")
    if pictures := open_pictures(table, command.images):
        tiles = [Tile(pictures(name), (f"{one.score:.3f}", name)) for name, one in found[:200]]
        sheet = command.out.with_suffix(".png")
        write_contact_sheet(in_rows(tiles, 10), sheet)
        say(f"{sheet}: contact sheet")


LINE = CommandLine(
    kind=Select,
    example="headwise select features.parquet --n 100 --how typical --out to_label.csv",
    usual="n how images out seed threads",
    run=run,
)
