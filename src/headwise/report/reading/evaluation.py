"""What was measured of one run, by data set."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from headwise.errors import UserError
from headwise.evaluation.statistics.tests import PairedTest, paired_permutation_test
from headwise.report.reading.comparison import words_of
from headwise.report.reading.fusion import FusionArrays, read_fusion
from headwise.runs.directory import Run
from headwise.runs.results import Result, key_of, unlike
from headwise.runs.sections import DataIdentity, Section

_BASELINE = (4, 0)
"""The first place that is no tap."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured on one data set. Nothing of it is ever combined with another's."""

    data: DataIdentity
    results: dict[str, Result]
    """By key, in the order of results.json; without differences to another run."""
    differences: list[Result]
    """The differences to another run's values on the same images."""
    apart: list[Result] = field(default_factory=list)
    """What was measured with other settings than the same measure at h. It stands alone: it is
    in no row, figure, sentence or test with `results`."""
    arrays: dict[str, np.ndarray]
    """By `kind/key`."""
    batch_aware: bool = False
    """Whether the head attends over the batch, so that z depends on the images in the batch."""
    fusion: FusionArrays | None = None
    """What `headwise fusion` measured on these images."""

    def get(self, measure: str, where: str, variant: str = "") -> Result | None:
        """The measure in its usual metric."""
        return self.results.get(key_of(measure, variant, "", where))

    def of(self, *measures: str) -> list[Result]:
        """These measures in their usual metric, everywhere."""
        found = self.results.values()
        return [result for result in found if result.measure in measures and not result.metric]

    def paired(self, a: Result, b: Result) -> PairedTest | None:
        """Whether two means over the same test images differ; None if they are not that."""
        first, second = (self.arrays.get(f"each/{result.key}") for result in (a, b))
        if first is None or second is None or first.shape != second.shape:
            return None
        return paired_permutation_test(torch.from_numpy(first), torch.from_numpy(second), seed=0)


@dataclass(frozen=True, kw_only=True)
class EvaluatedRun:
    """What a run directory says after `headwise evaluate` or `headwise fusion`."""

    name: str
    evaluations: list[Evaluation]
    """One for each data set, in the order in which they were first measured; at least one."""
    config: str
    """Of pretraining, as JSON to be read."""
    environment: dict[str, str]
    """Of pretraining, in words."""


def read_run(path: Path) -> EvaluatedRun:
    """Read the run directory `path`. Raises `UserError` if there is no finished run, or if nothing
    was measured."""
    run = Run.open(path)
    evaluations = [evaluation_of(run, section) for section in run.sections if section.results]
    evaluations = _with_fusion(evaluations, read_fusion(path))
    if not evaluations:
        raise UserError(
            f"report: {path} must have results; it has none; run `headwise evaluate {path}` first"
        )
    return EvaluatedRun(
        name=path.resolve().name,
        evaluations=evaluations,
        config=json.dumps(run.config, indent=2, ensure_ascii=False),
        environment=words_of(path / "environment.json"),
    )


def evaluation_of(run: Run, section: Section) -> Evaluation:
    """The results of a section, which may be a part of those that the run has."""
    own = {key: result for key, result in section.results.items() if result.against is None}
    reference: dict[str, Result] = {}
    for result in sorted(own.values(), key=lambda result: result.where != "h"):
        reference.setdefault(key_of(result.measure, result.variant, result.metric), result)
    unlike_h = {
        key
        for key, result in own.items()
        if unlike(result, reference[key_of(result.measure, result.variant, result.metric)])
    }
    return Evaluation(
        data=section.data,
        results={key: result for key, result in own.items() if key not in unlike_h},
        differences=[r for r in section.results.values() if r.against is not None],
        apart=[result for key, result in own.items() if key in unlike_h],
        arrays=run.arrays(section.data),
        batch_aware=run.config.get("head", {}).get("context") not in (None, "self"),
    )


def places(results: Iterable[Result]) -> list[str]:
    """Where these were measured: taps from the encoder on, then baselines, then all else."""
    return sorted(dict.fromkeys(result.where for result in results), key=_place)


def taps(results: Iterable[Result]) -> list[str]:
    """The same without baselines and all else."""
    return [where for where in places(results) if _place(where) < _BASELINE]


def _with_fusion(evaluations: list[Evaluation], fusion: FusionArrays | None) -> list[Evaluation]:
    """The arrays of the lab beside the results on the same images."""
    if fusion is None:
        return evaluations
    own = [e for e in evaluations if e.data.key == fusion.data.key]
    if not fusion.data.fingerprint:  # version 0.1 did not write it
        own = [e for e in evaluations if any(r.protocol == "fusion" for r in e.results.values())]
    if not own:
        alone = Evaluation(data=fusion.data, results={}, differences=[], arrays={}, fusion=fusion)
        return [*evaluations, alone]
    last = own[-1]
    return [replace(e, fusion=fusion) if e is last else e for e in evaluations]


def _place(where: str) -> tuple[int, int]:
    """Along the model: encoder stages, h, head layers, z; then raw pixels and the untrained
    encoder."""
    match where[:1], where[1:]:
        case "f", number if number.isdecimal():
            return 0, int(number)
        case "g", number if number.isdecimal():
            return 2, int(number)
        case _:
            return {"h": 1, "z": 3, "pixels": 4, "untrained": 5}.get(where, 6), 0
