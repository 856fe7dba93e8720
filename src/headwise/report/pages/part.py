"""A part of a run's page: words, figures and a table under one title."""

from collections.abc import Sequence
from dataclasses import dataclass

from headwise.report.plots.drawing import Drawing
from headwise.report.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class PagePart:
    """What stands under one title."""

    anchor: str
    title: str
    note: str = ""
    """What to know when reading it."""
    lines: tuple[str, ...] = ()
    """What was found, before everything else."""
    drawings: Sequence[Drawing] = ()
    wide: Sequence[Drawing] = ()
    """Those that take the width of the page."""
    table: Table | None = None
    spread: str = "± is half of the 95 % interval over test images."
    """What ± means in the table."""

    @property
    def figures(self) -> list[Drawing]:
        """All of them."""
        return [*self.drawings, *self.wide]
