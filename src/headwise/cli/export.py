"""`headwise export`: the encoder of a run for other programs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from headwise.cli.flags import Role
from headwise.cli.own_flags import OwnFlags, with_code
from headwise.cli.terminal import say
from headwise.cli.words import CommandLine, Given
from headwise.export.formats import Target


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the encoder of a finished run so that others load it without headwise. It is verified
    first: another process loads it and must give the same h."""

    run: Annotated[Path, Role.POSITIONAL]
    """The run directory."""
    to: Target = "timm"
    """The form. timm: a folder as on the Hugging Face hub, for timm.create_model; torch: a program
    of torch.export, for torch alone; onnx: an ONNX file, for onnxruntime and others
    (docs/export.md)."""
    out: Path
    """The folder to create."""
    data: str | None = None
    """Images to verify with. None: those of pretraining."""
    license: str = "other"
    """The licence of the weights, as the hub names it, such as apache-2.0, for the model card."""
    push: str | None = None
    """Upload the folder to the Hugging Face hub as OWNER/NAME; this needs a token. None: do not."""
    own: Annotated[OwnFlags, Role.UNPREFIXED] = field(default_factory=OwnFlags)
    threads: int | None = None
    """Threads of torch on the CPU; the last digits of results depend on it. None: OMP_NUM_THREADS,
    or else one for each usable core."""


def run(given: Given[Export]) -> None:
    from headwise.export.export import export_run
    from headwise.export.push import check_push, push

    given.need("run")
    given.need("out")
    command = given.command()
    if command.push is not None:
        check_push(command.push)
    out = export_run(
        with_code(command.run, command.own),
        command.to,
        command.out,
        data=command.data,
        licence=command.license,
        name=command.push,
    )
    say(f"{out}: loads without headwise and gives the same h, 1, 2 and 7 images at a time")
    if command.push is not None:
        say(f"Pushed: {push(out, command.push)}")


LINE = CommandLine(
    kind=Export,
    example="headwise export runs/photos --to timm --out exported",
    usual="to out data license push threads",
    run=run,
)
