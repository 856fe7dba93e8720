"""The tables of a study: what every arm reached, and what was tested."""

from collections.abc import Iterable, Iterator, Sequence

from headwise.files import csv_text
from headwise.report.reading.study import ArmFound, StudyFindings, Tested
from headwise.report.tables.forms import Form, written
from headwise.report.tables.measures import measure_words, protocol_of, stem_words
from headwise.report.tables.numbers import number_text, p_text
from headwise.report.tables.table import Cell, Column, Table, TableRow
from headwise.report.words import interval_text, percent, sentence_case

_CLAIMED = {"above": " above 0", "below": " below 0", "alike": ": no difference"}


def asked_measures(findings: StudyFindings) -> list[str]:
    """What the claims and figures are about; without any, everything that was measured."""
    asked = [tested.measure for claim in findings.claims for tested in claim.tested]
    asked += [measure for figure in findings.figures for measure in figure.measures]
    known = {measure: None for arm in findings.arms for measure in arm.values}
    return [measure for measure in dict.fromkeys(asked) if measure in known] or list(known)


def arms_tables(findings: StudyFindings, at_once: int = 100) -> list[Table]:
    """A row for each arm: its levels, the means of what was asked, and its seeds. Arms that vary
    other axes have a table of their own, and so have more measures than `at_once`."""
    kinds = list(dict.fromkeys(tuple(arm.levels) for arm in findings.arms))
    wide = [kind for kind in kinds if not any({*kind} < {*other} for other in kinds)]
    groups: dict[tuple[str, ...], list[ArmFound]] = {kind: [] for kind in wide}
    for arm in findings.arms:
        groups[next(kind for kind in wide if {*arm.levels} <= {*kind})].append(arm)
    tables = []
    for axes, arms in groups.items():
        asked = asked_measures(findings)
        known = [measure for measure in asked if any(measure in arm.values for arm in arms)]
        for i in range(0, max(len(known), 1), at_once):
            tables.append(_arms(axes, arms, findings, known[i : i + at_once]))
    return tables


def _arms(
    axes: Sequence[str],
    arms: Sequence[ArmFound],
    findings: StudyFindings,
    measures: Sequence[str],
) -> Table:
    rows = []
    for arm in arms:
        first, *levels = [arm.levels.get(axis, "–") for axis in axes]
        numbers = [_number(arm, measure) for measure in measures]
        seeds = Cell(text=f"{len(arm.seeds)} of {findings.seeds}")
        cells = [*(Cell(text=level) for level in levels), *numbers, seeds]
        rows.append(TableRow(label=first, cells=cells))
    columns = [*map(_titled, axes[1:]), *map(_measure_column, measures), _titled("seeds")]
    return Table(corner=axes[0], columns=columns, rows=rows)


def tested_table(tested: Sequence[Tested]) -> Table:
    """A row for each contrast: what is claimed of it, what was found, the test, and where there are
    several contrasts the answer of each."""
    titles = ["measure", "found", "95 % interval", "p", "seeds", "test", "answer"]
    titles = titles if len(tested) > 1 else titles[:-1]
    rows = []
    for one in tested:
        found = [found_text(one), ends_text(one), p_text(one.p_value), str(one.seeds)]
        texts = [measure_words(one.measure), *found, one.verdict, one.answer][: len(titles)]
        label = f"{one.name}{_CLAIMED[one.expects]}"
        rows.append(TableRow(label=label, cells=[Cell(text=text) for text in texts]))
    return Table(corner="claimed", columns=[*map(_titled, titles)], rows=rows)


def found_text(one: Tested) -> str:
    """`+3.2 points`."""
    if one.unit.startswith("points"):
        return f"{percent(one.value, signed=True)} {one.unit}"
    per = " per doubling" if one.unit.endswith(" per doubling") else ""
    return f"{_signed(one, one.value)}{per}"


def ends_text(one: Tested) -> str:
    """`+1.2 to +5.3`, the interval; empty if there is none."""
    if one.interval is None:
        return ""
    if one.unit.startswith("points"):
        return interval_text(*one.interval, signed=True)
    return " to ".join(_signed(one, end) for end in one.interval)


def arms_file(findings: StudyFindings) -> str:
    """Every number of every arm as CSV: mean, ±, and each seed, in the units of results.json."""
    axes, seeds = list(findings.axes), sorted({seed for arm in findings.arms for seed in arm.seeds})
    columns = [*axes, "measure", "unit", "mean", "plus minus", *(f"seed {seed}" for seed in seeds)]
    return csv_text(columns, _numbers(findings, seeds))


def claims_file(findings: StudyFindings) -> str:
    """Every contrast of every claim as CSV."""
    titles = ("claim", "says", "claim's answer", "contrast", "measure", "claimed", "unit", "value")
    titles += ("low", "high", "p", "seeds", "seeds needed", "answer", "test")
    rows = []
    for claim in findings.claims:
        for one in claim.tested:
            low, high = one.interval or ("", "")
            about = [claim.name, claim.says, claim.answer, one.name, one.measure, one.expects]
            numbers = [one.unit, one.value, low, high, one.p_value, one.seeds, one.seeds_needed]
            rows.append([*about, *numbers, one.answer, one.verdict])
    return csv_text(titles, rows)


def table_files(findings: StudyFindings) -> dict[str, str]:
    """The text of each file in `tables/`, by its name."""
    files = {"arms.csv": arms_file(findings), "claims.csv": claims_file(findings)}
    for name, tables in (("arms", arms_tables(findings)), ("claims", [_all_tested(findings)])):
        for form, end in (("markdown", "md"), ("latex", "tex")):
            texts = ["".join(_written(table, form)) for table in tables]
            files[f"{name}.{end}"] = "\n".join(texts)
    return files


def _written(table: Table, form: Form) -> Iterator[str]:
    titles = [table.corner, *(column.short or column.title for column in table.columns)]
    return written(titles, _texts(table), form)


def _all_tested(findings: StudyFindings) -> Table:
    """The contrasts of all claims, each beside its claim."""
    table = tested_table([one for claim in findings.claims for one in claim.tested])
    names = [claim.name for claim in findings.claims for _ in claim.tested]
    rows = [
        TableRow(label=name, cells=[Cell(text=row.label), *row.cells])
        for name, row in zip(names, table.rows, strict=True)
    ]
    return Table(corner="claim", columns=[_titled(table.corner), *table.columns], rows=rows)


def _texts(table: Table) -> Iterator[list[str]]:
    for row in table.rows:
        spreads = [f"{c.text} ± {c.spread}" if c.spread else c.text for c in row.cells]
        yield [row.label, *spreads]


def _numbers(findings: StudyFindings, seeds: Iterable[int]) -> Iterator[list[object]]:
    for arm in findings.arms:
        levels = [arm.levels.get(axis, "") for axis in findings.axes]
        for measure, values in arm.values.items():
            by_seed = dict(zip(arm.seeds, values, strict=True))
            mean, half = sum(values) / len(values), arm.plus_minus.get(measure)
            each = [by_seed.get(seed) for seed in seeds]
            yield [*levels, measure, arm.units.get(measure, ""), mean, half, *each]


def _number(arm: ArmFound, measure: str) -> Cell:
    values, unit = arm.values.get(measure), arm.units.get(measure, "")
    if not values:
        return Cell(text="–")
    half = arm.plus_minus.get(measure)
    spread = "" if half is None else number_text(unit, half)
    return Cell(text=number_text(unit, sum(values) / len(values)), spread=spread)


def _measure_column(measure: str) -> Column:
    """On the page, h and z of one measure stand below one heading."""
    stem, tap = stem_words(measure), measure.partition("/")[2]
    found = protocol_of(measure)
    anchor = found[0].replace("_", "-") if found else ""
    tap = tap if tap in ("h", "z") else ""
    title = stem if tap else measure_words(measure)
    return Column(title=sentence_case(title), tap=tap, short=measure, anchor=anchor)


def _titled(title: str) -> Column:
    return Column(title=title)


def _signed(one: Tested, value: float) -> str:
    text = number_text(one.unit.removesuffix(" per doubling"), value)
    return f"+{text}" if value > 0 and text.strip("0.") else text
