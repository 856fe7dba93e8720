"""The tables of a comparison: heads down, measures across."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headwise.evaluation.statistics.scores import best_and_tied, is_accuracy
from headwise.report.reading.summary import Group, Summary
from headwise.report.tables.table import Cell, Column, Mark, Table, TableRow

BASELINES = {"pixels": "raw pixels", "untrained": "untrained encoder"}
_DEFINED = ("pixels", "untrained")
"""Baselines that have a definition of their own."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A measure of the summary, as a column."""

    key: str
    """Its name in the summary: `linear/h`."""
    title: str
    anchor: str
    """Its entry among the page's definitions."""
    decimals: int = 0
    """Accuracies are printed in percent."""

    @property
    def column(self) -> Column:
        tap = self.key.partition("/")[2]
        return Column(title=self.title, tap=tap, short=self.key, anchor=self.anchor)

    def text(self, value: float) -> str:
        """A value as it is printed."""
        scale = 100 if is_accuracy(self.key) else 1
        return f"{scale * value:,.{self.decimals}f}".replace("-", "−")


ACCURACY = (
    Quantity(key="linear/h", title="Linear probe", anchor="linear", decimals=1),
    Quantity(key="linear/z", title="Linear probe", anchor="linear", decimals=1),
    Quantity(key="knn/h", title="kNN", anchor="knn", decimals=1),
    Quantity(key="knn/z", title="kNN", anchor="knn", decimals=1),
    Quantity(key="knn_weighted/h", title="Weighted kNN", anchor="knn-weighted", decimals=1),
)
GEOMETRY = (
    Quantity(key="rank/h", title="Effective rank", anchor="rank", decimals=1),
    Quantity(key="rank/z", title="Effective rank", anchor="rank", decimals=1),
)
TRAINING = (
    Quantity(key="loss", title="Loss", anchor="loss", decimals=3),
    Quantity(
        key="contrastive_accuracy",
        title="Contrastive accuracy",
        anchor="contrastive-accuracy",
        decimals=3,
    ),
    Quantity(key="alignment", title="Alignment", anchor="alignment", decimals=3),
    Quantity(key="uniformity", title="Uniformity", anchor="uniformity", decimals=3),
)
COST = (
    Quantity(key="parameters", title="Head parameters", anchor="parameters"),
    Quantity(key="seconds", title="Seconds", anchor="seconds", decimals=1),
    Quantity(key="views_per_second", title="Views/s", anchor="throughput"),
    Quantity(key="memory_mib", title="Memory, MiB", anchor="memory"),
)


def comparison_table(
    summary: Summary, quantities: Iterable[Quantity], notes: Mapping[str, str] | None = None
) -> Table | None:
    """A row for each head; below accuracies also the baselines and chance. Only the quantities
    that at least one head has; None if there are none. `notes` are sentences below heads."""
    known = [quantity for quantity in quantities if summary.head_scores(quantity.key)]
    if not known:
        return None
    marks = [_marks(summary, quantity) for quantity in known]
    rows = []
    for name in summary.heads:
        cells = _cells(summary, "heads", name, known, [mark.get(name, "") for mark in marks])
        note = (notes or {}).get(name, "")
        rows.append(TableRow(label=name, cells=cells, kind="head", note=note))
    if any(is_accuracy(quantity.key) for quantity in known):
        rows += _baselines(summary, known)
    return Table(corner="head", columns=[quantity.column for quantity in known], rows=rows)


def text_table(summary: Summary) -> str:
    """The tables for a terminal: accuracies in percent, then geometry and cost."""
    accuracy = comparison_table(summary, ACCURACY)
    other = comparison_table(summary, (*GEOMETRY, *COST))
    blocks = []
    if accuracy is not None:
        blocks.append(f"{accuracy.text()}\n{_legend(summary)}")
    if other is not None:
        blocks.append(other.text())
    return "\n\n".join(blocks) + "\n"


def _baselines(summary: Summary, known: Sequence[Quantity]) -> list[TableRow]:
    rows = [
        TableRow(
            label=BASELINES.get(name, name),
            short=name,
            anchor=name if name in _DEFINED else "baseline",
            kind="baseline",
            cells=_cells(summary, "baselines", name, known, [""] * len(known)),
        )
        for name in summary.baselines
    ]
    if summary.chance:
        text = f"{100 * summary.chance:.1f}"
        cells = [Cell(text=text if is_accuracy(quantity.key) else "") for quantity in known]
        rows.append(TableRow(label="chance", anchor="chance", kind="baseline", cells=cells))
    return rows


def _marks(summary: Summary, quantity: Quantity) -> dict[str, Mark]:
    """Only accuracies have a best: for the other measures neither end is better."""
    scores = summary.head_scores(quantity.key)
    if not is_accuracy(quantity.key) or len(scores) < 2:
        return {}
    best, tied = best_and_tied(scores)
    marks: dict[str, Mark] = dict.fromkeys(tied, "tied")
    return {**marks, best: "best"}


def _cells(
    summary: Summary, group: Group, name: str, known: Sequence[Quantity], marks: Sequence[Mark]
) -> list[Cell]:
    cells = []
    for quantity, mark in zip(known, marks, strict=True):
        score = summary.score(group, name, quantity.key)
        if score is None:
            cells.append(Cell(text="–" if group == "heads" else ""))
        else:
            spread = quantity.text(score.spread) if score.spread else ""
            cells.append(Cell(text=quantity.text(score.value), spread=spread, mark=mark))
    return cells


def _legend(summary: Summary) -> str:
    seeds = summary.seeds
    noise = f"standard deviation over {seeds} seeds" if seeds > 1 else "binomial standard error"
    marks = "  * best  ~ not shown to differ from it" if len(summary.heads) > 1 else ""
    return f"% correct ± {noise}{marks}"
