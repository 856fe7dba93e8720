"""What was measured of one run, by data set."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from headwise.errors import UserError
from headwise.evaluation.probes.labels import unbalanced
from headwise.report.reading.comparison import words_of
from headwise.report.reading.fusion import FusionArrays, read_fusion
from headwise.report.reading.training import too_short
from headwise.runs.directory import EVALUATED, Run
from headwise.runs.results import Result, bootstrap_mean, key_of, unlike
from headwise.runs.sections import DataIdentity, Section

_BASELINE = (4, 0)
"""The first place that is no tap."""


class Gap(NamedTuple):
    """The difference of two shares over the same test images and its 95 % interval, which is the
    only test that a sentence makes of it."""

    value: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out 0, as it is printed."""
        return round(self.low, 3) > 0 or round(self.high, 3) < 0


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
    z_is_h: bool = False
    """Whether the head is the identity."""
    too_short: str = ""
    """A sentence where pretraining was too short to judge the head."""
    fusion: FusionArrays | None = None
    """What `headwise fusion` measured on these images."""

    @property
    def truth(self) -> np.ndarray:
        """The class of each test image; empty where it is not known. Older files have it only in
        the counts of a confusion matrix, so not in the order of the images."""
        confusion = self.arrays.get("confusion/linear/h", np.empty((0, 0)))
        counted = np.repeat(np.arange(len(confusion)), confusion.sum(1).astype(int))
        return self.arrays.get("truth/constant", counted)

    @property
    def unbalanced(self) -> bool:
        """Whether balanced accuracy comes before accuracy."""
        return len(self.truth) > 0 and unbalanced(torch.from_numpy(self.truth))

    def get(self, measure: str, where: str, variant: str = "") -> Result | None:
        """The measure in its usual metric."""
        return self.results.get(key_of(measure, variant, "", where))

    def of(self, *measures: str) -> list[Result]:
        """These measures in their usual metric, everywhere."""
        found = self.results.values()
        return [result for result in found if result.measure in measures and not result.metric]

    def leading(self, measure: str, where: str, variant: str = "") -> Result | None:
        """The accuracy that comes first: the balanced one where classes are unbalanced."""
        usual = self.get(measure, where, variant)
        balanced = self.results.get(key_of(measure, variant, "per_class", where))
        return (balanced or usual) if self.unbalanced else usual

    def beside(self, result: Result, where: str) -> Result | None:
        """The same measure in the same metric, elsewhere."""
        return self.results.get(key_of(result.measure, result.variant, result.metric, where))

    def gap(self, a: Result, b: Result) -> Gap | None:
        """a − b, image by image; None if they are no means over the same test images."""
        first, second = (self.arrays.get(f"each/{result.key}") for result in (a, b))
        if first is None or second is None or first.shape != second.shape:
            return None
        return _gap(first.astype(np.float64) - second)

    def constant(self, h: Result) -> tuple[float, Gap] | None:
        """What a constant answer reaches where `h` was measured, and h's gap to it."""
        first, second = (self.arrays.get(f"each/{key}") for key in (h.key, "constant"))
        if not h.metric and first is not None and second is not None:
            return float(second.mean()), _gap(first.astype(np.float64) - second)
        if h.chance is None or h.interval is None:
            return None
        # The balanced accuracy of a constant answer is the same for all images.
        return h.chance, Gap(*(value - h.chance for value in (h.value, *h.interval)))


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
    pretrained: bool
    """Whether there is a run. Without one, config and environment are of the evaluation."""


def read_run(path: Path) -> EvaluatedRun:
    """Read the run directory `path`. Raises `UserError` if there is no finished run, or if nothing
    was measured."""
    run = Run.open(path, pretrained=False)
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
        pretrained=EVALUATED not in run.config,
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
    head = run.config.get("head", {})
    return Evaluation(
        data=section.data,
        results={key: result for key, result in own.items() if key not in unlike_h},
        differences=[r for r in section.results.values() if r.against is not None],
        apart=[result for key, result in own.items() if key in unlike_h],
        arrays=run.arrays(section.data),
        batch_aware=head.get("context") not in (None, "self"),
        z_is_h=head.get("name") == "identity" and not head.get("batch_norm"),
        too_short=too_short(run.metrics()),
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


def _gap(differences: np.ndarray) -> Gap:
    return Gap(differences.mean().item(), *bootstrap_mean(torch.from_numpy(differences)))


def _place(where: str) -> tuple[int, int]:
    """Along the model: encoder stages, h, head layers, z; then raw pixels, the untrained
    encoder and the start weights."""
    match where[:1], where[1:]:
        case "f", number if number.isdecimal():
            return 0, int(number)
        case "g", number if number.isdecimal():
            return 2, int(number)
        case _:
            return {"h": 1, "z": 3, "pixels": 4, "untrained": 5, "start": 6}.get(where, 7), 0
