"""The directory that `headwise compare` wrote, read once."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headwise.errors import UserError
from headwise.files import read_json


@dataclass(frozen=True, kw_only=True)
class Run:
    """One head pretrained with one seed. What the run did not write is empty."""

    head: str
    seed: int
    metrics: list[dict[str, Any]]
    """One dictionary a logged step, in the order of training."""
    results: dict[str, dict[str, Any]]
    """Final scores by name, each with the settings of its probe."""
    environment: dict[str, Any]
    analysis: dict[str, np.ndarray]
    """The arrays of its evaluation, and the map of h."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    out: Path
    summary: dict[str, Any]
    config: dict[str, Any]
    runs: list[Run]
    """Heads in the summary's order, then seeds ascending."""

    def first_runs(self) -> list[Run]:
        """The lowest seed of every head that has a run."""
        first = {run.head: run for run in reversed(self.runs)}
        return [first[head] for head in self.summary["heads"] if head in first]


def read_comparison(out: Path) -> Comparison:
    """Read `out`.

    Raises `UserError` where `summary.json` is missing or names no head, or where a file is broken.
    A run may lack any of its files: it is then left out of the figures that need them.
    """
    if not (out / "summary.json").is_file():
        raise UserError(
            f"report: {out} must be a directory that `headwise compare` finished; "
            "it has no summary.json; run `headwise compare` first or check the path"
        )
    summary = _json(out / "summary.json")
    if not isinstance(summary, dict) or not summary.get("heads"):
        raise UserError(
            f"report: {out / 'summary.json'} must name at least one head under 'heads'; "
            "it names none; run `headwise compare` again"
        )
    runs = [run for head in summary["heads"] for run in _runs(out, head)]
    config = _json(out / "config.json") if (out / "config.json").is_file() else {}
    return Comparison(out=out, summary=summary, config=config, runs=runs)


def _runs(out: Path, head: str) -> list[Run]:
    pattern = re.compile(re.escape(head) + r"-seed(\d+)")
    seeds = sorted(
        int(match[1])
        for folder in out.iterdir()
        if folder.is_dir() and (match := pattern.fullmatch(folder.name))
    )
    return [_run(out / f"{head}-seed{seed}", head, seed) for seed in seeds]


def _run(folder: Path, head: str, seed: int) -> Run:
    results, environment = folder / "results.json", folder / "environment.json"
    return Run(
        head=head,
        seed=seed,
        metrics=_metrics(folder / "metrics.jsonl"),
        results=_json(results).get("results", {}) if results.is_file() else {},
        environment=_json(environment) if environment.is_file() else {},
        analysis=_arrays(folder / "evaluation.npz") | _arrays(folder / "analysis.npz"),
    )


def _metrics(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [_decode(line, f"{path} line {i}") for i, line in enumerate(lines, 1) if line.strip()]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except json.JSONDecodeError as error:
        raise _broken(str(path), error) from error


def _decode(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise _broken(where, error) from error


def _broken(where: str, error: json.JSONDecodeError) -> UserError:
    return UserError(f"report: {where} must be JSON; got {error}; run that command again")
