"""`headwise duplicates`: copies and near copies among images."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from headwise.cli.flags import Role
from headwise.cli.search import check_out
from headwise.cli.terminal import say
from headwise.cli.words import CommandLine, Given
from headwise.errors import UserError
from headwise.files import csv_text, plain_text, write_text

if TYPE_CHECKING:
    from headwise.explore.duplicates import Row


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Find images with the same pixels, and near copies by the cosine of h, in groups. Groups with
    images of several splits come first: copies of training images in the test set raise its
    scores."""

    what: Annotated[str, Role.POSITIONAL]
    """A table of features (.parquet or .npz), or images: anything that --data.spec of pretrain
    takes. Near copies of images are found with --run only."""
    run: Path | None = None
    """The run whose encoder made the table, or its encoder.safetensors. It finds the threshold from
    near copies that it makes of some images. None: the threshold is not calibrated."""
    threshold: float | None = None
    """The least cosine of near copies. None: calibrated with --run, otherwise 0.95."""
    images: str | None = None
    """Where the images of the table are. None: where the table says."""
    pixels: bool = True
    """Decode all images and compare their pixels."""
    out: Path | None = None
    """The .csv file to write. A contact sheet is written beside it, as .png. None: neither."""
    threads: int | None = None
    """Threads of torch on the CPU. None: OMP_NUM_THREADS, or else one for each usable core."""
    quiet: bool = False
    """Show no progress."""


def run(given: Given[Duplicates]) -> None:
    given.need("what")
    command = given.command()
    check_out(command.out)
    if command.threshold is not None and not -1 < command.threshold <= 1:
        raise UserError(f"--threshold must be a cosine, at most 1; got {command.threshold}")
    from headwise.explore.duplicates import groups, summary, write_duplicates_sheet
    from headwise.explore.looking import look

    seen = look(
        command.what,
        run=command.run,
        threshold=command.threshold,
        images=command.images,
        pixels=command.pixels,
        quiet=command.quiet,
    )
    found = groups(seen.exact, seen.near, seen.names, seen.splits, seen.labels)
    say(*seen.said, "", *summary(found))
    if command.out is None:
        for group in found[:10]:
            say("", *(plain_text(_line(row)) for row in group[:10]))
        return
    if found:
        header, rows = found[0][0]._fields, (row for group in found for row in group)
        write_text(command.out, csv_text(header, rows))
        say(f"{command.out}: written")
    if found and seen.pictures is not None:
        sheet = command.out.with_suffix(".png")
        shown = write_duplicates_sheet(found, seen.pictures, sheet)
        say(f"{sheet}: {shown} of {len(found):,} groups")


def _line(row: "Row") -> str:
    about = filter(None, (row.split, row.label))
    return "  ".join([str(row.group), row.kind, f"{row.similarity:.4f}", *about, row.path])


LINE = CommandLine(
    kind=Duplicates,
    example="headwise duplicates features.parquet --run runs/photos --out duplicates.csv",
    usual="run threshold images pixels out threads quiet",
    run=run,
)
