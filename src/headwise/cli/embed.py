"""`headwise embed`: the representation of every image, as a table."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from headwise.cli.flags import Role, Without
from headwise.cli.own_flags import OwnFlags, with_code
from headwise.cli.terminal import say
from headwise.cli.words import CommandLine, Given
from headwise.data import DataConfig
from headwise.errors import UserError
from headwise.runtime.hardware import Device, Precision

EveryImage = Annotated[
    DataConfig,
    Without(("spec",), "IMAGES, its second word, names the images"),
    Without(("test_on",), "it takes the images of every split"),
    Without(("resident_mib",), "it keeps no images in memory"),
]


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Write the representation h of every image, or any taps, with its path, label and split, to a
    parquet file."""

    run: Annotated[Path, Role.POSITIONAL]
    """A finished run, or an encoder.safetensors."""
    images: Annotated[str, Role.POSITIONAL]
    """The images: anything that --data.spec of pretrain takes, such as a folder."""
    out: Path
    """The .parquet file to create. If an earlier call was interrupted, it is continued."""
    data: EveryImage = field(default_factory=DataConfig)
    taps: tuple[str, ...] = ("h",)
    """What to write, a column each. h: the representation; z: the projection; g1, g2, …: after a
    layer of the head; f1, f2, …: after a stage of the encoder."""
    thumbnails: int | None = None
    """Also write every image, as the encoder sees it, as a JPEG of at most this many pixels (96 is
    usual), in a column image. Smaller images keep their size. None: no thumbnails."""
    map: bool = False
    """Also write a map of h, two numbers an image, as columns x and y: by UMAP if umap-learn is
    installed, otherwise by t-SNE."""
    neighbors: int | None = None
    """Also write this many nearest neighbours of every image by h: rows, counted from 0, and
    distances (1 minus cosine similarity). None: no neighbours."""
    to: Literal["parquet", "projector"] = "parquet"
    """projector: also write the files of TensorBoard's projector, into the folder
    OUT-stem.projector."""
    batch_size: int = 512
    """Images encoded at a time. A head that attends over the batch sees these, so its z depends on
    it."""
    device: Device = "auto"
    """The device to run on. auto: a GPU if there is one."""
    precision: Precision = "auto"
    """The precision of the encoder. auto: bfloat16 autocast if the hardware is fast at it,
    otherwise float32."""
    workers: int | None = None
    """Processes that decode image files. None: one for each core."""
    threads: int | None = None
    """Threads of torch on the CPU; the last digits of results depend on it. None: OMP_NUM_THREADS,
    or else one for each usable core."""
    accept_changed_data: bool = False
    """Go on if the images are those of pretraining and have changed since."""
    own: Annotated[OwnFlags, Role.UNPREFIXED] = field(default_factory=OwnFlags)
    quiet: bool = False
    """Show no progress."""


def run(given: Given[Embed]) -> None:
    from headwise.explore.elsewhere import complete, write_projector
    from headwise.features.table import embed
    from headwise.model.trained import data_of
    from headwise.runs.directory import Run

    run, images = given.need("run"), given.need("images")
    known = (run / "config.json").is_file()
    command = given.command({"data": data_of(Run(run), images)} if known else None)
    if command.out.suffix != ".parquet":
        raise UserError(f"--out must end in .parquet, the only format written; got {command.out}")
    _check(command)
    rows = embed(
        with_code(command.run, command.own),
        replace(command.data, spec=command.images),
        command.out,
        taps=command.taps,
        thumbnails=command.thumbnails,
        batch_size=command.batch_size,
        device=command.device,
        precision=command.precision,
        workers=command.workers,
        accept_changed_data=command.accept_changed_data,
        quiet=command.quiet,
    )
    if command.map or command.neighbors is not None:
        complete(command.out, map=command.map, neighbors=command.neighbors)
    say(f"{command.out}: {', '.join(command.taps)} of {rows} images of {command.images}")
    if command.to == "projector":
        say(f"{write_projector(command.out)}: for TensorBoard's projector")


def _check(command: Embed) -> None:
    """Raise `UserError`, before anything is encoded, for what cannot be written later."""
    from headwise.explore.elsewhere import projector_folder

    wanted = command.map or command.neighbors is not None or command.to == "projector"
    if wanted and "h" not in command.taps:
        raise UserError(
            f"--map, --neighbors and --to projector need h among --taps; "
            f"got {' '.join(command.taps)}"
        )
    if command.neighbors is not None and command.neighbors < 1:
        raise UserError(f"--neighbors must be at least 1, or none; got {command.neighbors}")
    if command.to == "projector":
        projector_folder(command.out)


LINE = CommandLine(
    kind=Embed,
    example="headwise embed runs/photos ./photos --out features.parquet",
    usual=(
        "out taps thumbnails map neighbors to data.limit batch_size device threads precision "
        "workers quiet"
    ),
    run=run,
)
