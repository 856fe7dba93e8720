"""`report.html`: the comparison as one page that needs nothing else."""

import statistics
from dataclasses import replace
from pathlib import Path

from headwise.evaluation.config import describe
from headwise.evaluation.statistics.over_seeds import half_width_of_means
from headwise.report.pages.definitions import definition
from headwise.report.pages.rendering import data_address, render, write_page
from headwise.report.plots.comparison import accuracy_bars, curves, factor_heatmap, spectra
from headwise.report.plots.drawing import Drawing, style
from headwise.report.plots.maps import class_map
from headwise.report.prose.comparison import plain_result
from headwise.report.reading.comparison import ComparedRun, Comparison, read_comparison
from headwise.report.reading.summary import Scores, Summary
from headwise.report.tables.comparison import (
    ACCURACY,
    BALANCED,
    BASELINES,
    COST,
    FEW_LABELS,
    GEOMETRY,
    TRAINING,
    comparison_table,
    difference_table,
    legend,
    recall_table,
)
from headwise.report.tables.table import Table
from headwise.report.words import counted

Figures = dict[str, list[Drawing]]

_DEFINED = ("linear", "knn", "knn_weighted", "linear_10", "knn_self", "factors")
"""The protocols that the page links to."""
NUMERALS = ("Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


def write_report(out: Path) -> Path:
    """Write `out/report.html` and, as SVG and PNG, `out/figures/`; the path of the page.

    Reads only `out`, which `headwise compare` wrote; the same content gives the same bytes. Raises
    `UserError` if there is no summary, or if a file is broken.
    """
    comparison = read_comparison(out)
    figures = _draw(comparison)
    drawings = [drawing for group in figures.values() for drawing in group]
    return write_page(out, render("comparison.html", _values(comparison, figures)), drawings)


def _draw(comparison: Comparison) -> Figures:
    """Every figure that the directory has the numbers for, by section of the page."""
    summary = comparison.summary
    with style():
        figures: dict[str, list[Drawing | None]] = {
            "accuracy": [
                accuracy_bars(summary, probe, title)
                for probe, title in (("linear", "Linear probe"), ("knn", "kNN"))
                if summary.head_scores(f"{probe}/h") or summary.head_scores(f"{probe}/z")
            ],
            "curves": [
                curves(comparison, "loss", "Loss"),
                curves(comparison, "contrastive_accuracy", "Contrastive accuracy"),
            ],
            "spectra": [
                spectra(comparison, "h", "Spectrum of h"),
                spectra(comparison, "z", "Spectrum of z"),
            ],
            "maps": [class_map(run, summary.classes) for run in comparison.first_runs()],
            "factors": [
                factor_heatmap(summary, "h", "Predicted from h"),
                factor_heatmap(summary, "z", "Predicted from z"),
            ],
        }
    return {
        section: [drawing for drawing in drawings if drawing is not None]
        for section, drawings in figures.items()
    }


def _values(comparison: Comparison, figures: Figures) -> dict[str, object]:
    """What the template asks for."""
    summary, runs = comparison.summary, comparison.runs
    full = _with_last_epoch(comparison)
    environment = next((run.environment for run in runs if run.environment), {})
    settings = next((run.settings for run in runs if run.settings), {})
    first, *rest = plain_result(summary)
    return {
        "summary": summary,
        "title": _title(summary),
        "facts": _facts(summary, environment),
        "lead": first,
        "sentences": rest,
        "accuracy": _accuracy(summary),
        "legend": legend(summary),
        "recalls": recall_table(summary),
        "differences": _differences(summary),
        "geometry": comparison_table(full, (*GEOMETRY, *TRAINING)),
        "cost": comparison_table(full, COST),
        "figures": figures,
        "views": data_address(comparison.out / "views.png"),
        "settings": settings,
        "definitions": [
            definition(name, describe(name), settings.get(f"{name}/h", "")) for name in _DEFINED
        ],
        "environment": environment,
        "same_environment": all(run.environment in ({}, environment) for run in runs),
        "run_names": [run.place for run in runs],
        "config": comparison.config,
    }


def _accuracy(summary: Summary) -> list[Table]:
    """Under imbalance the mean over classes leads."""
    blocks = [BALANCED] if summary.unbalanced else []
    tables = [comparison_table(summary, some) for some in (*blocks, ACCURACY, FEW_LABELS)]
    return [table for table in tables if table is not None]


def _differences(summary: Summary) -> dict[str, list[tuple[str, Table]]]:
    """The tables of differences by kind, each under its measure, the leading one first. One seed
    has none between heads."""
    by_kind = {}
    for kind, found in summary.differences.items():
        if kind == "heads" and summary.seeds == 1:
            continue
        leads = (summary.leading, summary.leading.partition("/")[0])
        measures = sorted(dict.fromkeys(one.measure for one in found), key=lambda m: m not in leads)
        tables = [
            (measure, difference_table(summary.between(kind, measure), BASELINES))
            for measure in measures
        ]
        by_kind[kind] = [(measure, table) for measure, table in tables if table is not None]
    return by_kind


def _title(summary: Summary) -> str:
    count = len(summary.heads)
    noun = "projection head" if summary.noun == "head" else summary.noun
    if count == 1:
        return f"One {noun}"
    number = dict(enumerate(NUMERALS, 2)).get(count, str(count))
    return f"{number} {noun}s compared"


def _facts(summary: Summary, environment: dict[str, str]) -> list[str]:
    counts = {
        "training image": summary.images,
        "test image": summary.n_test,
        "epoch": summary.epochs,
        "seed": summary.seeds,
    }
    facts = [counted(count, noun) for noun, count in counts.items() if count]
    classes = [f"{len(summary.classes)} classes"] if summary.classes else []
    device = environment.get("device_name", environment.get("device"))
    return [*facts[:-2], *classes, *facts[-2:], *([device] if device else [])]


def _with_last_epoch(comparison: Comparison) -> Summary:
    """The summary with the logged measures at the end of pretraining: mean over the seeds of each
    head, and half of its 95 % interval."""
    summary = comparison.summary
    heads: Scores = {}
    halves: Scores = {}
    for head, values in summary.heads.items():
        runs = [run for run in comparison.runs if run.head == head]
        ends = {q.key: _ends(runs, q.key) for q in (*TRAINING, *COST)}
        means = {key: statistics.mean(found) for key, found in ends.items() if found}
        known = {key: half_width_of_means(found) for key, found in ends.items()}
        heads[head] = means | values
        halves[head] = {key: half for key, half in known.items() if half is not None}
        halves[head] |= summary.plus_minus.get("heads", {}).get(head, {})
    return replace(summary, heads=heads, plus_minus={"heads": halves})


def _ends(runs: list[ComparedRun], key: str) -> list[float]:
    return [end for run in runs if (end := run.at_the_end(key)) is not None]
