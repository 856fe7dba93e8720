"""`headwise explore`: a page to look at the images of a table on a map of `h`."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from headwise.cli.embed import EveryImage
from headwise.cli.flags import Role
from headwise.cli.own_flags import OwnFlags, with_code
from headwise.cli.terminal import say
from headwise.cli.words import CommandLine, Given
from headwise.data import DataConfig
from headwise.errors import UserError
from headwise.explore.page import ExploreConfig
from headwise.runtime.hardware import Device


@dataclass(frozen=True, kw_only=True)
class Explore:
    """Write a page that shows every image as a point on a map of h: look at images and their
    nearest neighbours, select them, label them, and download lists. The page needs no network."""

    table: Annotated[Path, Role.POSITIONAL]
    """A table of features, or a run, of which the table is made first, as OUT-stem.parquet."""
    images: Annotated[str | None, Role.POSITIONAL] = None
    """The images of the table: what embed was given. None: the thumbnails of the table are shown,
    which embed --thumbnails writes."""
    out: Path
    """The .html file to write. An older one is replaced."""
    explore: Annotated[ExploreConfig, Role.UNPREFIXED] = field(default_factory=ExploreConfig)
    data: EveryImage = field(default_factory=DataConfig)
    device: Device = "auto"
    """The device that makes the table of a run. auto: a GPU if there is one."""
    workers: int | None = None
    """Processes that decode image files. None: one for each core."""
    threads: int | None = None
    """Threads of torch on the CPU. None: OMP_NUM_THREADS, or else one for each usable core."""
    own: Annotated[OwnFlags, Role.UNPREFIXED] = field(default_factory=OwnFlags)
    quiet: bool = False
    """Show no progress."""


def run(given: Given[Explore]) -> None:
    from headwise.explore.opening import thumbnails_of
    from headwise.explore.page import check_extra, check_rows, write_page
    from headwise.explore.table import read_table

    command = given.command()
    if command.out.suffix != ".html":
        raise UserError(f"--out must end in .html; got {command.out}")
    check_extra()
    made = command.table.is_dir() or command.table.suffix == ".safetensors"
    table = read_table(_embedded(given) if made else command.table)
    check_rows(table)
    data = None
    if command.images is not None and not made:
        data = replace(command.data, spec=command.images)
    found = thumbnails_of(
        table, data, command.explore.thumbnails, workers=command.workers, quiet=command.quiet
    )
    say(write_page(table, found, command.out, command.explore))


def _embedded(given: Given[Explore]) -> Path:
    """The table of a run, with thumbnails, made beside the page."""
    from headwise.features.table import embed
    from headwise.model.trained import data_of
    from headwise.runs.directory import Run

    run, images = given.need("table"), given.need("images")
    known = (run / "config.json").is_file()
    command = given.command({"data": data_of(Run(run), images)} if known else None)
    path = command.out.with_suffix(".parquet")
    if path.exists():
        raise UserError(
            f"{path} is the place of the table of {run}, and exists; give it instead of the run, "
            "or remove it"
        )
    rows = embed(
        with_code(run, command.own),
        replace(command.data, spec=images),
        path,
        thumbnails=command.explore.thumbnails,
        device=command.device,
        workers=command.workers,
        quiet=command.quiet,
    )
    say(f"{path}: h of {rows} images of {images}")
    return path


LINE = CommandLine(
    kind=Explore,
    example="headwise explore features.parquet ./photos --out page.html",
    usual="out thumbnails neighbors clusters packed_mib data.limit workers quiet",
    run=run,
)
