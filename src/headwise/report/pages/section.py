"""A part of a run's report: words, figures and a table under one title."""

from dataclasses import dataclass, field

from headwise.report.plots.drawing import Drawing
from headwise.report.tables.evaluation import Table


@dataclass(frozen=True, kw_only=True)
class Section:
    anchor: str
    title: str
    note: str = ""
    """What to know when reading it."""
    lines: tuple[str, ...] = ()
    """What was found, before everything else."""
    drawings: list[Drawing] = field(default_factory=list)
    wide: list[Drawing] = field(default_factory=list)
    """Those that take the width of the page."""
    table: Table | None = None
