"""The tables of a comparison: heads down, measures across."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headwise.evaluation.statistics.crossed import FEWEST_SEEDS
from headwise.evaluation.statistics.over_seeds import Difference
from headwise.report.reading.summary import Group, Summary
from headwise.report.tables.table import Cell, Column, Table, TableRow
from headwise.report.words import interval_text, percent

BASELINES = {
    "pixels": "raw pixels",
    "untrained": "untrained encoder",
    "start": "start weights",
    "scratch": "from scratch",
}
_DEFINED = ("pixels", "untrained", "start", "scratch")
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


BALANCED = (
    Quantity(key="linear_per_class/h", title="Linear, per class", anchor="per-class", decimals=1),
    Quantity(key="linear_per_class/z", title="Linear, per class", anchor="per-class", decimals=1),
    Quantity(key="knn_per_class/h", title="kNN, per class", anchor="per-class", decimals=1),
    Quantity(key="knn_per_class/z", title="kNN, per class", anchor="per-class", decimals=1),
)
ACCURACY = (
    Quantity(key="linear/h", title="Linear probe", anchor="linear", decimals=1),
    Quantity(key="linear/z", title="Linear probe", anchor="linear", decimals=1),
    Quantity(key="knn/h", title="kNN", anchor="knn", decimals=1),
    Quantity(key="knn/z", title="kNN", anchor="knn", decimals=1),
    Quantity(key="knn_weighted/h", title="Weighted kNN", anchor="knn-weighted", decimals=1),
)
FEW_LABELS = (
    Quantity(key="linear_10/h", title="Linear, 10 % of labels", anchor="linear-10", decimals=1),
    Quantity(key="linear_10/z", title="Linear, 10 % of labels", anchor="linear-10", decimals=1),
    Quantity(key="knn_self/h", title="1-NN, test images", anchor="knn-self", decimals=1),
    Quantity(key="knn_self/z", title="1-NN, test images", anchor="knn-self", decimals=1),
)
"""Deep Fusion's pair."""
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


def is_accuracy(key: str) -> bool:
    return key.startswith(("knn", "linear"))


def comparison_table(summary: Summary, quantities: Iterable[Quantity]) -> Table | None:
    """A row for each head; below accuracies also the baselines and chance. Only the quantities
    that at least one head has; None if there are none."""
    known = [quantity for quantity in quantities if summary.head_scores(quantity.key)]
    if not known:
        return None
    rows = [
        TableRow(label=name, cells=_cells(summary, "heads", name, known), kind="head")
        for name in summary.heads
    ]
    if any(is_accuracy(quantity.key) for quantity in known):
        rows += _baselines(summary, known)
    return Table(corner=summary.noun, columns=[quantity.column for quantity in known], rows=rows)


def difference_table(
    found: Sequence[Difference], names: Mapping[str, str], *, short: bool = False
) -> Table | None:
    """A row for each difference, in points; None if there are none. With one seed the interval is
    about its networks; with few, it has one for each seed; with enough there is a verdict, and
    unless `short` what the error is made of."""
    columns = [_columns(one, short=short) for one in found]
    rows = [
        TableRow(
            label=f"{one.a} − {names.get(one.b, one.b.removeprefix(f'{one.a}, '))}",
            cells=[Cell(text=text) for text in texts.values()],
        )
        for one, texts in zip(found, columns, strict=True)
    ]
    titles = [Column(title=title) for title in columns[0]] if columns else []
    return Table(corner="difference", columns=titles, rows=rows) if rows else None


def _columns(one: Difference, *, short: bool) -> dict[str, str]:
    """The cells of a row, by the heading of their column."""
    ends = [interval_text(*within, signed=True) for within in one.within]
    texts = {"points": percent(one.value, signed=True)}
    if one.seeds == 1:
        return texts | {"95 % interval, these networks": ends[0]}
    if one.interval is not None:
        texts["95 % interval"] = interval_text(*one.interval, signed=True)
    if one.seeds < FEWEST_SEEDS:
        return texts | {f"in seed {place}": end for place, end in enumerate(ends, 1)}
    p_value = one.p_value or 0.0
    texts |= {"p": f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001", "verdict": one.verdict}
    if short:
        return texts
    return texts | {
        "σ over seeds": percent(one.seed_deviation or 0.0),
        "test-set error": percent(one.image_error),
        "seeds for 3 points": str(one.seeds_for_three_points or "more images"),
    }


_MOST_CLASSES = 12
"""Columns of recalls at most."""


def recall_table(summary: Summary) -> Table | None:
    """The recall of each class, at h by the leading probe, of up to `_MOST_CLASSES` classes."""
    if not summary.recalls:
        return None
    first = next(iter(summary.recalls.values()))
    if len(first) > _MOST_CLASSES:
        return None
    rows = [
        TableRow(
            label=BASELINES.get(name, name),
            cells=[Cell(text=percent(recall)) for recall in recalls.values()],
            kind="head" if name in summary.heads else "baseline",
        )
        for name, recalls in summary.recalls.items()
    ]
    columns = [Column(title=name) for name in first]
    return Table(corner="recall, %", columns=columns, rows=rows)


def text_table(summary: Summary) -> str:
    """The tables for a terminal: accuracies in percent, what heads differ by, geometry and cost."""
    lines = (
        [[*BALANCED, *ACCURACY[:2]], FEW_LABELS] if summary.unbalanced else [ACCURACY, FEW_LABELS]
    )
    accuracy = [comparison_table(summary, some) for some in lines]
    blocks = [table.text() for table in accuracy if table is not None]
    if blocks:
        blocks.append(legend(summary))
    recalls = recall_table(summary)
    if summary.unbalanced and recalls is not None:
        blocks.append(recalls.text())
    between = summary.between("heads", summary.leading) if summary.seeds > 1 else []
    apart = difference_table(between, {}, short=True)
    if apart is not None:
        blocks.append(f"{summary.leading}, between {summary.noun}s:\n{apart.text()}")
    other = comparison_table(summary, (*GEOMETRY, *COST))
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
            cells=_cells(summary, "baselines", name, known),
        )
        for name in summary.baselines
    ]
    if summary.chance:
        cells = [Cell(text=_chance(summary, quantity.key)) for quantity in known]
        rows.append(TableRow(label="chance", anchor="chance", kind="baseline", cells=cells))
    return rows


def _chance(summary: Summary, key: str) -> str:
    if not is_accuracy(key):
        return ""
    of_class = 1 / len(summary.classes) if summary.classes else 0.0
    return percent(of_class if "per_class" in key else summary.chance or 0.0)


def _cells(summary: Summary, group: Group, name: str, known: Sequence[Quantity]) -> list[Cell]:
    cells = []
    for quantity in known:
        score = summary.score(group, name, quantity.key)
        if score is None:
            cells.append(Cell(text="–" if group == "heads" else ""))
        else:
            spread = quantity.text(score.plus_minus) if score.plus_minus else ""
            cells.append(Cell(text=quantity.text(score.value), spread=spread))
    return cells


def legend(summary: Summary) -> str:
    """What the numbers are, and the ±."""
    if summary.seeds == 1:
        return "% correct ± half of the 95 % interval (these networks, other test images)"
    mean = f"% correct, mean of {summary.seeds} seeds"
    if summary.judged:
        return f"{mean} ± half of the 95 % interval (other seeds and images)"
    return f"{mean}; an interval takes {FEWEST_SEEDS}"
