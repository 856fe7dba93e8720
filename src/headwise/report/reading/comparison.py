"""The directory that `headwise compare` wrote, read once."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headwise.report.reading.files import read_object
from headwise.report.reading.summary import Summary, read_summary
from headwise.report.words import settings_in_words, word
from headwise.runs.directory import Run, arm_folders, load_arrays
from headwise.runs.sections import Section


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One arm pretrained with one seed. What the run did not write is empty."""

    head: str
    """The name of the arm."""
    place: str
    """Its directory, as summary.json has it."""
    metrics: list[dict[str, float]]
    """The finite numbers of each logged step, in the order of training."""
    settings: dict[str, str]
    """The settings of the probes in words, by result."""
    environment: dict[str, str]
    """In words."""
    arrays: dict[str, np.ndarray]
    """The arrays of its evaluation, and the map of h."""

    def at_the_end(self, key: str) -> float | None:
        """A logged measure: its mean over the last epoch, or the last of the seconds."""
        lines = [line for line in self.metrics if key in line]
        if not lines:
            return None
        if key == "seconds":
            return lines[-1][key]
        # Epochs are fractions: 3.25 is a quarter into the fourth.
        start = lines[-1].get("epoch", 0) - 1
        return statistics.mean(line[key] for line in lines if line.get("epoch", 0) > start)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison as it lies on disk."""

    out: Path
    summary: Summary
    config: str
    """Its settings, as JSON to be read."""
    runs: list[ComparedRun]
    """Arms in the summary's order, then seeds ascending."""

    def first_runs(self) -> list[ComparedRun]:
        """The lowest seed of every arm that has a run."""
        first = {run.head: run for run in reversed(self.runs)}
        return [first[head] for head in self.summary.heads if head in first]


def read_comparison(out: Path) -> Comparison:
    """Read `out`.

    Raises `UserError` if `summary.json` is missing or names no head, or if a file is broken. A run
    may lack any of its files: it is then left out of the figures that need them.
    """
    summary = read_summary(out / "summary.json")
    config = json.dumps(read_object(out / "config.json"), indent=2, ensure_ascii=False)
    runs = [
        _run(out, head, place, summary)
        for head in summary.heads
        for place in (summary.runs.get(head, {}).values() or _places(out, head))
    ]
    return Comparison(out=out, summary=summary, config=config, runs=runs)


def _places(out: Path, head: str) -> list[str]:
    """The directories `HEAD-seedN`."""
    return [folder.name for arm, _, folder in arm_folders(out) if arm == head]


def _run(out: Path, head: str, place: str, summary: Summary) -> ComparedRun:
    run = Run(out / place)
    section = _section(run.sections, summary)
    results = section.results if section else {}
    return ComparedRun(
        head=head,
        place=place,
        metrics=_metrics(run),
        settings={key: settings_in_words(result.settings) for key, result in results.items()},
        environment=words_of(run.path / "environment.json"),
        arrays=(run.arrays(section.data) if section else {})
        | load_arrays(run.path / "analysis.npz"),
    )


def _section(sections: Sequence[Section], summary: Summary) -> Section | None:
    """The results on the comparison's images: a run may have been evaluated on others since."""
    same = [section for section in sections if section.data.key == summary.section]
    own = [section for section in sections if section.data.spec == summary.data]
    return next(iter(same or own or sections), None)


def words_of(path: Path) -> dict[str, str]:
    """The entries of a JSON object in words; none if there is no file."""
    return {key: word(value) for key, value in read_object(path).items()}


def _metrics(run: Run) -> list[dict[str, float]]:
    """Without what is no number: a loss may have been NaN."""
    return [
        {k: float(v) for k, v in line.items() if isinstance(v, int | float) and math.isfinite(v)}
        for line in run.metrics()
    ]
