"""What a comparison found, as summary.json has it: scores of every arm, and what is shown."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headwise.comparison.baselines import Baselines
from headwise.comparison.summary import LEADING, PROTOCOLS, TAPS, Measured
from headwise.config import to_dict
from headwise.errors import UserError
from headwise.evaluation.probes.labels import unbalanced
from headwise.evaluation.statistics.over_seeds import (
    Difference,
    differences,
    half_width,
    half_width_of_means,
)
from headwise.files import Json
from headwise.heads import Head
from headwise.model.build import build_model
from headwise.model.trained import load_config
from headwise.runs.directory import Run
from headwise.runs.sections import DataIdentity

Answers = dict[str, dict[str, Float[Tensor, "s n"]]]
"""By measure (`linear/h`), then by arm or baseline: 1 where a seed answers a test image rightly.
Under imbalance also by `linear_per_class/h`, where an image counts the more the rarer its class
is, so that the mean is the mean over classes."""

_BASELINES = ("constant", "pixels", "untrained", "start", "scratch")


@dataclass(frozen=True, kw_only=True)
class MeasuredRuns:
    """All runs of a comparison, with what was measured of them: by arm, a list over seeds."""

    runs: dict[str, list[Run]]
    measured: dict[str, list[Measured]]
    baselines: list[Baselines]
    """One for each seed."""
    data: DataIdentity


def findings(found: MeasuredRuns, classes: Sequence[str]) -> Json:
    """Means over the seeds, their standard deviations, half of the 95 % interval where it is known
    (`plus_minus`), and what arms, taps and baselines differ by. `classes`: names by label."""
    answers = answers_of(found, PROTOCOLS)
    heads = {arm: build_model(load_config(runs[0])).head for arm, runs in found.runs.items()}
    by_seed = [_scores(found, answers, heads, place) for place in range(len(found.baselines))]
    mean = _over_seeds(by_seed, statistics.fmean)
    several = len(by_seed) > 1
    seeds = [load_config(run).seed for run in next(iter(found.runs.values()))]
    truth = found.baselines[0].get("truth")
    return {
        **mean,
        **({"std": _over_seeds(by_seed, statistics.stdev)} if several else {}),
        "by_seed": {str(seed): row for seed, row in zip(seeds, by_seed, strict=True)},
        "plus_minus": {
            "heads": _plus_minus([scores["heads"] for scores in by_seed], answers),
            "baselines": _plus_minus([scores["baselines"] for scores in by_seed], answers),
        },
        "unbalanced": truth is not None and unbalanced(torch.from_numpy(truth)),
        "recalls": {} if truth is None else _recalls(answers, truth, classes),
        "differences": {
            kind: [to_dict(one) for one in some]
            for kind, some in _differences(answers, heads).items()
        },
    }


def _scores(
    found: MeasuredRuns, answers: Answers, heads: Mapping[str, Head], place: int
) -> dict[str, dict[str, dict[str, float]]]:
    """The scores of one seed."""
    measured = {arm: some[place] for arm, some in found.measured.items()}
    scored = {
        name: {
            key: rows[name][place].mean().item() for key, rows in answers.items() if name in rows
        }
        for name in _BASELINES[1:]  # the first is chance
    }
    return {
        "heads": {
            arm: {
                **{key: result.value for key, result in results.items()},
                "parameters": _parameters(heads[arm]),
                "seconds": found.runs[arm][place].metrics()[-1]["seconds"],
            }
            for arm, results in measured.items()
        },
        "baselines": {name: scores for name, scores in scored.items() if scores},
        "factors": {arm: _factors(results) for arm, results in measured.items()},
    }


def _parameters(head: Head) -> float:
    """How many are trained."""
    return float(sum(p.numel() for p in head.parameters() if p.requires_grad))


def _factors(measured: Measured) -> dict[str, float]:
    """The score of each nuisance factor at each tap; empty where none are known."""
    means = {tap: measured.get(f"factors/{tap}") for tap in TAPS}
    return {tap: result.settings["scores"] for tap, result in means.items() if result}


def answers_of(found: MeasuredRuns, protocols: Sequence[str]) -> Answers:
    """The answers to every test image by these protocols; empty without labels."""
    truth = found.baselines[0].get("truth")
    if truth is None or len(truth) < 2:
        return {}
    arrays = {head: [run.arrays(found.data) for run in runs] for head, runs in found.runs.items()}
    answers: Answers = {}
    for name in protocols:
        for tap in TAPS:
            key = f"{name}/{tap}"
            answers[key] = {
                head: _stacked([of_run[f"each/{key}"] for of_run in runs])
                for head, runs in arrays.items()
            }
        for base in _BASELINES:
            if all(f"{name}/{base}" in bases for bases in found.baselines):
                rows = [bases[f"{name}/{base}"] for bases in found.baselines]
                answers[f"{name}/h"][base] = _stacked(rows)
    if unbalanced(torch.from_numpy(truth)):
        weights = _weights(truth)
        answers |= {
            key.replace("/", "_per_class/"): {name: rows * weights for name, rows in some.items()}
            for key, some in answers.items()
            if key.partition("/")[0] in LEADING
        }
    return answers


def _stacked(rows: Sequence[np.ndarray]) -> Float[Tensor, "s n"]:
    counts = sorted({len(row) for row in rows})
    if len(counts) > 1:
        raise UserError(
            "a comparison needs runs that were judged on the same test images; got "
            f"{' and '.join(map(str, counts))}; some could not be read every time"
        )
    return torch.from_numpy(np.stack(rows)).double()


def _weights(truth: np.ndarray) -> Float[Tensor, " n"]:
    """How much each image counts, 1 on average, so that every class counts the same."""
    _, classes, counts = np.unique(truth, return_inverse=True, return_counts=True)
    return torch.from_numpy(len(truth) / (len(counts) * counts[classes]))


def _differences(answers: Answers, heads: Mapping[str, Head]) -> dict[str, list[Difference]]:
    """Of `h` between arms, of every arm's `h` to its `z`, and to baselines."""
    own_z = [arm for arm, head in heads.items() if head.layers]
    between: dict[str, list[Difference]] = {"baselines": [], "heads": [], "taps": []}
    for measure, rows in answers.items():
        probe, _, tap = measure.partition("/")
        if tap != "h":
            continue
        between["heads"] += differences(measure, rows, list(combinations(heads, 2)))
        if probe.removesuffix("_per_class") in LEADING:
            pairs = [(head, base) for base in _BASELINES if base in rows for head in heads]
            between["baselines"] += differences(measure, rows, pairs)
        if f"{probe}/z" in answers:
            at_z = {f"{head}, z": answers[f"{probe}/z"][head] for head in own_z}
            pairs = [(head, f"{head}, z") for head in own_z]
            between["taps"] += differences(probe, {**rows, **at_z}, pairs)
    return between


def _recalls(
    answers: Answers, truth: np.ndarray, classes: Sequence[str]
) -> dict[str, dict[str, float]]:
    """By head or baseline, then by class: the share of its test images that a linear probe on h
    answers rightly. Empty where classes are balanced."""
    if "linear_per_class/h" not in answers:
        return {}
    return {
        name: {
            classes[label]: rows[:, torch.from_numpy(truth == label)].mean().item()
            for label in np.unique(truth)
        }
        for name, rows in answers["linear/h"].items()
        if name != "constant"
    }


def _plus_minus(
    by_seed: Sequence[Mapping[str, Mapping[str, float]]], answers: Answers
) -> dict[str, dict[str, float | None]]:
    """Half of the 95 % interval of every score: over test images and seeds where the answers are
    known, over seeds of other numbers."""
    return {
        name: {
            key: half_width(answers[key][name])
            if name in answers.get(key, {})
            else half_width_of_means([scores[name][key] for scores in by_seed])
            for key in row
        }
        for name, row in by_seed[0].items()
    }


def _over_seeds(tables: Sequence[Any], combine: Callable[[list[float]], float]) -> Any:
    """Combine numbers that stand at the same place of several nested dictionaries."""
    if isinstance(tables[0], dict):
        return {key: _over_seeds([table[key] for table in tables], combine) for key in tables[0]}
    return combine(list(tables))
