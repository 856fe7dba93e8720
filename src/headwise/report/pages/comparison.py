"""`report.html`: the comparison as one page that needs nothing else."""

import base64
import json
import statistics
from itertools import groupby
from pathlib import Path
from typing import Any

from headwise.evaluation.statistics.scores import finite, head_scores
from headwise.report.pages.rendering import render, settings, word, write_page
from headwise.report.plots.comparison import accuracy_bars, curves, factor_heatmap, spectra
from headwise.report.plots.drawing import Drawing, style
from headwise.report.plots.maps import class_map
from headwise.report.prose.comparison import plain_result
from headwise.report.reading.comparison import Comparison, Run, read_comparison
from headwise.report.tables.comparison import (
    ACCURACY,
    COST,
    GEOMETRY,
    TRAINING,
    Measure,
    measured,
    rows,
)

Figures = dict[str, list[Drawing]]

NUMERALS = ("Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


def write_report(out: Path) -> Path:
    """Write `out/report.html` and, as SVG and PNG, `out/figures/`; the path of the page.

    Reads nothing but `out`, which `headwise compare` wrote; equal content gives equal bytes.
    Raises `UserError` where there is no summary, or where a file is broken.
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
                if head_scores(summary, f"{probe}/h") or head_scores(summary, f"{probe}/z")
            ],
            "curves": [
                curves(comparison, "loss", "Loss"),
                curves(comparison, "contrastive_accuracy", "Contrastive accuracy"),
            ],
            "spectra": [
                spectra(comparison, "h", "Spectrum of h"),
                spectra(comparison, "z", "Spectrum of z"),
            ],
            "maps": [
                class_map(run, summary.get("classes") or []) for run in comparison.first_runs()
            ],
            "factors": [
                factor_heatmap(summary, "h", "Read from h"),
                factor_heatmap(summary, "z", "Read from z"),
            ],
        }
    return {
        section: [drawing for drawing in drawings if drawing is not None]
        for section, drawings in figures.items()
    }


def _values(comparison: Comparison, figures: Figures) -> dict[str, Any]:
    """What the template asks for."""
    summary = comparison.summary
    full = _with_last_epoch(comparison)
    accuracy = measured(summary, ACCURACY)
    geometry, cost = measured(full, (*GEOMETRY, *TRAINING)), measured(full, COST)
    first, *rest = plain_result(summary)
    return {
        "summary": summary,
        "lead": first,
        "sentences": rest,
        "learned": summary.get("learned") or {},
        "accuracy": rows(summary, accuracy) if accuracy else [],
        "accuracy_columns": _columns(accuracy),
        "geometry": rows(full, geometry) if geometry else [],
        "geometry_columns": _columns(geometry),
        "cost": rows(full, cost) if cost else [],
        "cost_columns": _columns(cost),
        "figures": figures,
        "views": _data_address(comparison.out / "views.png"),
        "settings": next((settings(run.results) for run in comparison.runs if run.results), {}),
        "environment": _environment(comparison.runs),
        "same_environment": _same_environment(comparison.runs),
        "run_names": [f"{run.head}-seed{run.seed}" for run in comparison.runs],
        "numerals": dict(enumerate(NUMERALS, 2)),
        "config": json.dumps(comparison.config, indent=2, ensure_ascii=False),
    }


def _columns(measures: list[Measure]) -> list[tuple[Measure, list[str]]]:
    """Neighbours of one title under one heading: its first measure, and the taps below it."""
    groups = [list(group) for _, group in groupby(measures, key=lambda measure: measure.title)]
    return [(group[0], [measure.tap for measure in group]) for group in groups]


def _with_last_epoch(comparison: Comparison) -> dict[str, Any]:
    """The summary with, for every head, the logged measures at the end of pretraining: the mean
    over the last epoch's lines, then mean and standard deviation over seeds."""
    heads, deviations = {}, {}
    std = (comparison.summary.get("std") or {}).get("heads") or {}
    for head, values in comparison.summary["heads"].items():
        runs = [run for run in comparison.runs if run.head == head]
        ends = {m.key: [_end(run, m.key) for run in runs] for m in (*TRAINING, *COST)}
        known = {key: [end for end in found if end is not None] for key, found in ends.items()}
        means = {key: statistics.mean(found) for key, found in known.items() if found}
        spread = {key: statistics.stdev(found) for key, found in known.items() if len(found) > 1}
        heads[head] = {**means, **(values or {})}
        deviations[head] = {**spread, **(std.get(head) or {})}
    return {**comparison.summary, "heads": heads, "std": {"heads": deviations}}


def _end(run: Run, key: str) -> float | None:
    lines = [line for line in run.metrics if finite(line.get(key)) is not None]
    if not lines:
        return None
    if key == "seconds":
        return float(lines[-1][key])
    start = lines[-1].get("epoch", 0) - 1  # epochs are fractions: 3.25 is a quarter into the fourth
    return statistics.mean(float(line[key]) for line in lines if line.get("epoch", 0) > start)


def _environment(runs: list[Run]) -> dict[str, str]:
    first = next((run.environment for run in runs if run.environment), {})
    return {key: word(value) for key, value in first.items()}


def _same_environment(runs: list[Run]) -> bool:
    found = [run.environment for run in runs if run.environment]
    return all(environment == found[0] for environment in found)


def _data_address(path: Path) -> str:
    """The PNG as a `data:` address; empty where there is none."""
    if not path.is_file():
        return ""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
