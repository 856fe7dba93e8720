"""The copies of own code that a run holds, and a recorded part with its code again."""

from pathlib import Path

from headwise.own_code import Handed, OwnCode, Part

FOLDER = "code"
"""The folder of a run with a copy of each part's file: code/head.py."""


def trusted(recorded: OwnCode, part: Part, handed: Handed, folder: Path) -> OwnCode:
    """One part of the run in `folder` with the code that was handed over, or that of the run's copy
    if it is allowed. Raises `UserError` for code that is not what the run was made with."""
    given: OwnCode | None = vars(handed)[part]
    if given is not None:
        return recorded.handed_over(given, part)
    if handed.allow_code and recorded.file is not None:
        return recorded.from_copy(copy_of(folder, part), part)
    return recorded


def copy_of(folder: Path, part: Part) -> Path:
    return folder / FOLDER / f"{part}.py"
