"""The tables of a comparison: rows of cells, for the page and for the terminal."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from headwise.evaluation.statistics.scores import best_and_tied, head_scores, is_accuracy, score

Mark = Literal["", "best", "tied"]

BASELINES = {"pixels": "raw pixels", "untrained": "untrained encoder"}


@dataclass(frozen=True, kw_only=True)
class Measure:
    key: str
    """Its name in `summary["heads"][NAME]`."""
    title: str
    """Words for the column; measures that share a title stand side by side under it."""
    anchor: str
    """Its entry among the page's definitions."""
    decimals: int = 0
    """Decimals to print; accuracies are printed as percentages."""

    @property
    def tap(self) -> str:
        return self.key.partition("/")[2]


@dataclass(frozen=True, kw_only=True)
class Cell:
    text: str
    spread: str = ""
    """What follows ±, empty where no error is known."""
    mark: Mark = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    name: str
    label: str
    kind: Literal["head", "baseline"]
    cells: list[Cell]


ACCURACY = (
    Measure(key="linear/h", title="Linear probe", anchor="linear", decimals=1),
    Measure(key="linear/z", title="Linear probe", anchor="linear", decimals=1),
    Measure(key="knn/h", title="kNN", anchor="knn", decimals=1),
    Measure(key="knn/z", title="kNN", anchor="knn", decimals=1),
    Measure(key="knn_weighted/h", title="Weighted kNN", anchor="knn-weighted", decimals=1),
)
GEOMETRY = (
    Measure(key="rank/h", title="Effective rank", anchor="rank", decimals=1),
    Measure(key="rank/z", title="Effective rank", anchor="rank", decimals=1),
)
TRAINING = (
    Measure(key="loss", title="Loss", anchor="loss", decimals=3),
    Measure(
        key="contrastive_accuracy",
        title="Contrastive accuracy",
        anchor="contrastive-accuracy",
        decimals=3,
    ),
    Measure(key="alignment", title="Alignment", anchor="alignment", decimals=3),
    Measure(key="uniformity", title="Uniformity", anchor="uniformity", decimals=3),
)
COST = (
    Measure(key="parameters", title="Head parameters", anchor="parameters"),
    Measure(key="seconds", title="Seconds", anchor="seconds", decimals=1),
    Measure(key="views_per_second", title="Views/s", anchor="throughput"),
    Measure(key="memory_mib", title="Memory, MiB", anchor="memory"),
)


def measured(summary: dict[str, Any], measures: Iterable[Measure]) -> list[Measure]:
    """Those measures that at least one head has."""
    return [measure for measure in measures if head_scores(summary, measure.key)]


def rows(summary: dict[str, Any], measures: list[Measure]) -> list[Row]:
    """A row a head; then, where an accuracy is among the measures, the baselines and chance."""
    marks = {measure.key: _marks(summary, measure) for measure in measures}
    table = [
        Row(
            name=name,
            label=name,
            kind="head",
            cells=[_cell(summary, "heads", name, m, marks[m.key].get(name, "")) for m in measures],
        )
        for name in summary["heads"]
    ]
    if not any(is_accuracy(measure.key) for measure in measures):
        return table
    for name in summary.get("baselines") or {}:
        cells = [_cell(summary, "baselines", name, measure, "") for measure in measures]
        label = BASELINES.get(name, name)
        table.append(Row(name=name, label=label, kind="baseline", cells=cells))
    if summary.get("chance"):
        text = f"{100 * summary['chance']:.1f}"
        cells = [Cell(text=text if is_accuracy(m.key) else "") for m in measures]
        table.append(Row(name="chance", label="chance", kind="baseline", cells=cells))
    return table


def text_table(summary: dict[str, Any]) -> str:
    """The tables for a terminal, aligned plain text at most 80 columns wide where names are short:
    accuracies in percent, with `*` at the best head of a column and `~` at heads not shown to
    differ from it; then geometry and cost."""
    groups = [measured(summary, ACCURACY), measured(summary, (*GEOMETRY, *COST))]
    blocks = [_block(summary, measures) for measures in groups if measures]
    if groups[0]:
        blocks[0] += _legend(summary)
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _block(summary: dict[str, Any], measures: list[Measure]) -> list[str]:
    table = rows(summary, measures)
    names = [row.label if row.kind == "head" else row.name for row in table]
    columns = [["head", *names]]
    for i, measure in enumerate(measures):
        columns.append(_aligned(measure.key, [row.cells[i] for row in table]))
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in zip(*columns, strict=True)
    ]
    return [lines[0], "─" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]]


def number(value: float, measure: Measure) -> str:
    scale = 100 if is_accuracy(measure.key) else 1
    return f"{scale * value:,.{measure.decimals}f}".replace("-", "−")


def _marks(summary: dict[str, Any], measure: Measure) -> dict[str, Mark]:
    """Only accuracies have a best: of the other measures neither end is better."""
    scores = head_scores(summary, measure.key)
    if not is_accuracy(measure.key) or len(scores) < 2:
        return {}
    best, tied = best_and_tied(scores)
    marks: dict[str, Mark] = dict.fromkeys(tied, "tied")
    return {**marks, best: "best"}


def _cell(summary: dict[str, Any], group: str, name: str, measure: Measure, mark: Mark) -> Cell:
    found = score(summary, group, name, measure.key)
    if found is None:
        return Cell(text="–" if group == "heads" else "")
    spread = number(found.spread, measure) if found.spread else ""
    return Cell(text=number(found.value, measure), spread=spread, mark=mark)


def _aligned(heading: str, cells: list[Cell]) -> list[str]:
    """A column whose numbers, errors and marks each stand in line."""
    spread = max(len(cell.spread) for cell in cells)
    marked = any(cell.mark for cell in cells)
    column = [heading]
    for cell in cells:
        error = f" ±{cell.spread.rjust(spread)}" if cell.spread else " " * (spread + 2)
        mark = {"best": "*", "tied": "~", "": " "}[cell.mark]
        column.append(cell.text + (error if spread else "") + (mark if marked else ""))
    return column


def _legend(summary: dict[str, Any]) -> list[str]:
    seeds = summary.get("seeds") or 1
    noise = f"standard deviation over {seeds} seeds" if seeds > 1 else "binomial standard error"
    marks = "  * best  ~ not shown to differ from it" if len(summary["heads"]) > 1 else ""
    return [f"% correct ± {noise}{marks}"]
