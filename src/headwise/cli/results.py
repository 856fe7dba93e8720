"""`headwise results`: take the numbers of runs and comparisons away."""

import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from headwise.cli.flags import Role
from headwise.cli.terminal import say
from headwise.cli.words import CommandLine, Given
from headwise.errors import UserError
from headwise.files import write_atomically
from headwise.report.reading.long import Answer, Number, answers, numbers
from headwise.report.tables.forms import Form, lines


@dataclass(frozen=True, kw_only=True)
class Results:
    """Print every number of runs and comparisons as one table in long form: a row for each run,
    protocol and tap."""

    directories: Annotated[tuple[Path, ...], Role.POSITIONAL]
    """Runs and comparisons."""
    to: Form = "csv"
    """The form of the table."""
    each: bool = False
    """Instead one row for each test image: id, label, prediction, right or wrong, and margin, under
    each protocol and for the baselines of a comparison."""
    keys: tuple[str, ...] = ()
    """Only these results, such as linear/h and knn/z. None: all."""
    out: Path | None = None
    """The file to create. None: the table is printed."""


def run(given: Given[Results]) -> None:
    given.need("directories")
    command = given.command()
    kind = Answer if command.each else Number
    rows = (answers if command.each else numbers)(command.directories, command.keys)
    table = lines(_found(rows, command), kind, command.to)
    if command.out is None:
        sys.stdout.writelines(table)
        return
    if command.out.exists():
        raise UserError(
            f"--out must be a new file; {command.out} exists; remove it or choose another"
        )
    write_atomically(command.out, lambda path: _write(path, table))
    say(f"{command.out}: written")


def _found(rows: Iterator[Number | Answer], command: Results) -> Iterator[Number | Answer]:
    """The rows. Raises `UserError` where there are none."""
    first = next(rows, None)
    if first is None:
        which = f" of {' '.join(command.keys)}" if command.keys else ""
        what = "answers" if command.each else "results"
        raise UserError(
            f"results: {' '.join(map(str, command.directories))} must have {what}{which}; found "
            "none; measure them with: headwise evaluate RUN"
        )
    return itertools.chain([first], rows)


def _write(path: Path, table: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(table)


LINE = CommandLine(
    kind=Results,
    example="headwise results runs/heads --to csv --out heads.csv",
    usual="to each keys out",
    run=run,
)
