"""The flags that hand own code over with a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headwise.model.own_parts import open_run
from headwise.own_code import Handed
from headwise.runs.directory import Run


@dataclass(frozen=True, kw_only=True)
class OwnFlags:
    """The own code that a run was made with (docs/own.md)."""

    head: str | None = None
    """The own head that the run was made with, as FILE:function (docs/own.md). None: it is not
    handed over."""
    encoder: str | None = None
    """The own encoder that the run was made with, as FILE:function. None: it is not handed
    over."""
    augment: str | None = None
    """The own operator that the run was made with, as FILE:function. None: it is not handed
    over."""
    allow_code: bool = False
    """Execute the copies of own code that the run holds. Only for runs that you trust."""


def with_code(run: Path, flags: OwnFlags) -> Path | Run:
    """The run with the code that these flags hand over; its path if there is none."""
    if flags == OwnFlags():
        return run
    return open_run(
        run,
        head=flags.head,
        encoder=flags.encoder,
        augment=flags.augment,
        allow_code=flags.allow_code,
    )


def handed_in(values: Mapping[str, Any]) -> Handed:
    """The code that the flags of pretrain and compare hand over."""
    parts = {
        part: values.get(f"{part}.own") for part in ("head", "encoder", "objective", "augment")
    }
    return Handed(**parts, allow_code=bool(values.get("allow_code")))
