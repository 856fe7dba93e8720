"""From the finished runs of a study to findings.json: what every arm reached, what is shown of each
claim, and where the numbers are from."""

import os
from collections.abc import Iterable
from pathlib import Path

from headwise.config import to_dict
from headwise.evaluation.statistics.over_seeds import half_width
from headwise.files import read_object, write_json
from headwise.report.reading.study import FINDINGS_FILE, ArmFound, StudyFindings
from headwise.report.words import counted, listed
from headwise.study.answers import Numbers, stacked
from headwise.study.design import Study
from headwise.study.judge import judge
from headwise.study.place import read_begun, read_plan, state


def collect(folder: Path) -> StudyFindings:
    """Write findings.json from what has been run so far."""
    begun, plan, reached = read_begun(folder), read_plan(folder), state(folder)
    study, numbers = begun.study, Numbers(folder, begun, plan)
    runs = {one.name: numbers.run(one) for some in numbers.placed.values() for one in some}
    environments = [read_object(run.path / "environment.json") for run in runs.values()]
    found = StudyFindings(
        name=study.name,
        asks=study.asks,
        scale=_scale(study),
        axes=_axes(study),
        seeds=study.seeds,
        arms=tuple(_arm(arm, numbers, folder) for arm in numbers.arms),
        claims=tuple(judge(claim, numbers) for claim in study.claims),
        figures=study.figures,
        failed=reached.failed,
        missing=len(reached.left(plan)),
        commit=_few(str(e.get("commit") or "unknown")[:7] for e in environments),
        machine=_few(str(e.get("device_name") or "unknown") for e in environments),
        command=begun.command,
        hours=sum(run.metrics()[-1]["seconds"] for run in runs.values()) / 3600,
    )
    write_json(folder / FINDINGS_FILE, to_dict(found))
    return found


def _arm(arm: str, numbers: Numbers, folder: Path) -> ArmFound:
    placed = numbers.placed[arm]
    seeds = [one.seed for one in placed]
    values: dict[str, list[float]] = {}
    plus_minus: dict[str, float] = {}
    for measure in numbers.measures():
        rows = numbers.of(arm, measure)
        if not seeds or {*rows} != {*seeds}:
            continue  # not measured of every seed: no mean of this arm
        answers = stacked(rows, seeds)
        values[measure] = answers.mean(1).tolist()
        half = half_width(answers)
        if half is not None and len(seeds) > 1:
            plus_minus[measure] = half
    return ArmFound(
        levels=numbers.arms[arm],
        name=arm,
        seeds=tuple(seeds),
        values=values,
        plus_minus=plus_minus,
        units={measure: numbers.units[measure] for measure in values},
        runs=tuple(os.path.relpath(numbers.run(one).path, folder) for one in placed),
    )


def _axes(study: Study) -> dict[str, list[str]]:
    axes: dict[str, list[str]] = {}
    for axis in (one for grid in study.grids for one in grid):
        known = axes.setdefault(axis.name, [])
        known += [level for level in axis.levels if level not in known]
    return axes


def _scale(study: Study) -> str:
    """`images of ./cifar10, resnet-small, 13 epochs`; of what an axis varies, all of it."""
    levels = [one for grid in study.grids for a in grid for one in a.levels.values()]
    specs = dict.fromkeys(one["data.spec"] for one in levels if "data.spec" in one)
    base = study.base
    parts = {
        "encoder.name": base.encoder.name,
        "epochs": counted(base.epochs, "epoch"),
    }
    alike = [words for path, words in parts.items() if not any(path in one for one in levels)]
    return ", ".join([f"images of {listed(list(specs) or [base.data.spec])}", *alike])


def _few(words: Iterable[str]) -> str:
    return listed(sorted({*words}))
