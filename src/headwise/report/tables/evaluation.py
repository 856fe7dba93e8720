"""The tables of an evaluation: each number of results.json once, by section of the page."""

from collections.abc import Iterable, Sequence

from headwise.report.reading.evaluation import places
from headwise.report.tables.numbers import cell, count_text, label, number_text, p_text
from headwise.report.tables.table import Cell, Column, Table, TableRow
from headwise.report.words import settings_in_words
from headwise.runs.results import Result

_TARGET_METRICS = {"per_class": "balanced accuracy", "map11": "11-point mAP"}
_ROBUSTNESS = {"robustness": "accuracy", "invariance": "cosine"}

Lines = Sequence[tuple[str, Sequence[Result | None]]]
"""Labels, each with its results; None where one is missing."""


def table_by_place(results: Sequence[Result]) -> Table:
    """A row for each measure, a column for each tap (or other place); then facts of the row."""
    columns = places(results)
    lines = [(label(row[0]), [_at(row, where) for where in columns]) for row in _series(results)]
    return _table(lines, [where or "value" for where in columns], "measure")


def table_by_measure(results: Sequence[Result], corner: str) -> Table:
    """A row for each place (a pair of taps, a target), a column for each measure."""
    series = _series(results)
    lines = [
        (_target(where, results), [_at(column, where) for column in series])
        for where in places(results)
    ]
    return _table(lines, [label(column[0]) for column in series], corner)


def robustness_table(results: Sequence[Result]) -> Table:
    """A row for each augmentation, columns of accuracy and cosine by tap."""
    taps = places(results)
    by_place = {(r.measure, r.variant, r.where): r for r in results}
    lines = [
        (
            variant.replace("_", " "),
            [by_place.get((measure, variant, tap)) for measure in _ROBUSTNESS for tap in taps],
        )
        for variant in dict.fromkeys(result.variant for result in results)
    ]
    columns = [f"{words}, {tap}" for words in _ROBUSTNESS.values() for tap in taps]
    return _table(lines, columns, "augmentation")


def differences_table(results: Sequence[Result]) -> Table:
    """A row for each value that was compared with another run's."""
    rows = []
    for result in results:
        cells = [cell(result), Cell(text=count_text(result.n))]
        rows.append(TableRow(label=f"{label(result)}, {result.where}", cells=cells))
    return _plain("measure", ["difference", "n"], rows)


def apart_table(results: Sequence[Result]) -> Table:
    """A row for each value that stands alone, with the settings that it has."""
    rows = []
    for result in results:
        config = result.settings.get("config", {})
        words = (count_text(result.n), str(len(result.seeds)), settings_in_words(config))
        cells = [cell(result), *(Cell(text=text) for text in words)]
        rows.append(TableRow(label=f"{label(result)}, {result.where}", cells=cells))
    return _plain("measure", ["value", "n", "seeds", "settings"], rows)


def fusion_table(results: Sequence[Result]) -> Table:
    """A row for each measure, a column for each tap; the last row says whether the block
    exceeds every control. The slope along the blocks is in the conclusion."""
    by_tap = [result for result in results if result.where]
    table = table_by_place(by_tap)
    gains = {result.where: result for result in by_tap if result.measure == "fusion_gain"}
    if not gains:
        return table
    found = [gains.get(column.title) for column in table.columns]
    p_values = [p_text(gain.p_value) if gain else "" for gain in found]
    above = [_yes_no(g.settings.get("exceeds_controls")) if g else "" for g in found]
    last = [
        TableRow(label=words, cells=[Cell(text=text) for text in texts])
        for words, texts in (("p, permuted labels", p_values), ("exceeds every control", above))
    ]
    return Table(corner=table.corner, columns=table.columns, rows=[*table.rows, *last])


def _yes_no(value: object) -> str:
    """Empty if it is not known, as in results of older versions."""
    return "" if value is None else "yes" if value else "no"


def _series(results: Iterable[Result]) -> list[list[Result]]:
    """Results that differ only in their place, together."""
    groups: dict[tuple[str, str, str, str], list[Result]] = {}
    for result in results:
        key = (result.protocol, result.measure, result.variant, result.metric)
        groups.setdefault(key, []).append(result)
    return list(groups.values())


def _at(results: Iterable[Result], where: str) -> Result | None:
    return next((result for result in results if result.where == where), None)


def _target(where: str, results: Iterable[Result]) -> str:
    """The place, with the metric of a target that is not the usual one."""
    at = _at(results, where)
    words = _TARGET_METRICS.get(str(at.settings.get("metric", "")), "") if at else ""
    return f"{where}, {words}" if words else where


def _table(lines: Lines, columns: Sequence[str], corner: str) -> Table:
    facts = [_facts([result for result in results if result is not None]) for _, results in lines]
    names = [name for name in facts[0] if any(fact[name] for fact in facts)] if facts else []
    rows = []
    for (words, results), fact in zip(lines, facts, strict=True):
        last = [Cell(text=fact[name]) for name in names]
        rows.append(TableRow(label=words, cells=[*map(cell, results), *last]))
    return _plain(corner, [*columns, *names], rows)


def _plain(corner: str, titles: Sequence[str], rows: Sequence[TableRow]) -> Table:
    return Table(corner=corner, columns=[Column(title=title) for title in titles], rows=rows)


def _facts(results: Sequence[Result]) -> dict[str, str]:
    """What the results of a row have in common, or the range of it."""
    chances = sorted((r.chance, r.unit) for r in results if r.chance is not None)
    if len({unit for _, unit in chances}) > 1:
        chances = []  # on different scales
    seeds = sorted(len(result.seeds) for result in results)
    seen = {r.settings["in_pretraining"] for r in results if "in_pretraining" in r.settings}
    return {
        "in pretraining": "–".join("yes" if said else "no" for said in sorted(seen)),
        "chance": _range([number_text(unit, chance) for chance, unit in chances]),
        "n": _range([count_text(n) for n in sorted(result.n for result in results)]),
        "seeds": _range([str(count) for count in seeds if count]),
    }


def _range(texts: Sequence[str]) -> str:
    """The first and the last of ascending numbers."""
    ends = [*texts[:1], *texts[-1:]]
    return "–".join(dict.fromkeys(ends))
