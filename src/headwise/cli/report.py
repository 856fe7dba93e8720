"""`headwise report`: a page made anew from what is on disk, without measuring."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from headwise.cli.flags import Role
from headwise.cli.terminal import say
from headwise.cli.words import CommandLine, Given


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the report.html of a run, a comparison or fusion over seeds again, from what is in its
    directory."""

    directory: Annotated[Path, Role.POSITIONAL]
    """A run that was evaluated, a comparison, or the --out of headwise fusion."""


def run(given: Given[Report]) -> None:
    from headwise.report import rebuild

    say(f"Report: {rebuild(given.command().directory)}")


LINE = CommandLine(kind=Report, example="headwise report runs/photos", usual="", run=run)
