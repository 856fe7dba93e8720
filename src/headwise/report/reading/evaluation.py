"""The numbers of one evaluated run, found by measure and tap."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headwise.errors import UserError
from headwise.evaluation.statistics.tests import PairedTest, paired_permutation_test
from headwise.files import read_json
from headwise.runs.directory import Run
from headwise.runs.results import Result

# Of these a value is a share of test images; other measures have scales of their own.
_SHARES = re.compile(
    r"(knn|linear|semi|finetune|transfer|robustness|leakage)[\w.]*|cluster(_spectral)?"
    r"|transformation_(grey|rotation|noise|sobel)|fusion_(nn1|(twin|self|other)_mass)"
)
_TAPS = (r"f\d+", "h", r"g\d+", "z", "pixels", "untrained")


@dataclass(frozen=True, kw_only=True)
class Number:
    """One entry of results.json."""

    measure: str
    """`linear` of `linear/h`."""
    what: str
    """`h` of `linear/h`: a tap, or what else was measured."""
    result: Result

    @property
    def value(self) -> float:
        return float(self.result["value"])

    @property
    def interval(self) -> tuple[float, float]:
        """95 %; no wider than the value where none is known."""
        low, high = self.result.get("interval") or (self.value, self.value)
        return low, high

    @property
    def chance(self) -> float | None:
        """What a guess reaches; None where it is not known, or differs from seed to seed."""
        chance = self.result.get("chance")
        return float(chance) if isinstance(chance, int | float) else None

    @property
    def text(self) -> str:
        return number_text(self.measure, self.value)

    @property
    def spread(self) -> str:
        """What follows ±: half the width of the 95 % interval; then σ over seeds, where known."""
        parts = []
        if "interval" in self.result:
            low, high = self.interval
            parts.append(number_text(self.measure, (high - low) / 2))
        if "std" in self.result:
            parts.append(f"σ {number_text(self.measure, self.result['std'])}")
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a run directory says after `headwise evaluate`."""

    name: str
    numbers: dict[str, Number]
    """By `measure/what`, in the order of results.json."""
    arrays: dict[str, np.ndarray]
    config: dict[str, Any]
    environment: dict[str, Any]

    def get(self, measure: str, what: str) -> Number | None:
        return self.numbers.get(f"{measure}/{what}")

    def whats(self, measures: Iterable[str]) -> list[str]:
        """Where these were measured: taps from the encoder on, baselines, then all else."""
        wanted = set(measures)
        found = [n.what for n in self.numbers.values() if n.measure in wanted]
        return sorted(dict.fromkeys(found), key=_place)

    def taps(self, measures: Iterable[str]) -> list[str]:
        """The same without baselines and all else."""
        return [what for what in self.whats(measures) if _place(what) < (4, 0)]

    def measures(self, pattern: str) -> list[str]:
        """Those whose whole name matches."""
        found = dict.fromkeys(number.measure for number in self.numbers.values())
        return [measure for measure in found if re.fullmatch(pattern, measure)]

    def paired(self, a: Number, b: Number) -> PairedTest | None:
        """Whether two means over the same test images differ; None where they are not that."""
        first, second = (self.arrays.get(f"each/{n.measure}/{n.what}") for n in (a, b))
        same = a.result.get("fingerprint") == b.result.get("fingerprint")
        if first is None or second is None or first.shape != second.shape or not same:
            return None
        return paired_permutation_test(torch.from_numpy(first), torch.from_numpy(second), seed=0)


def read_evaluation(path: Path) -> Evaluation:
    """Read the run directory `path`. Raises `UserError` where there is no run or no result, also
    none of fusion."""
    run = Run.open(path)
    numbers = {}
    for name, result in run.results.items():
        measure, _, what = name.partition("/")
        numbers[f"{measure}/{what}"] = Number(measure=measure, what=what, result=result)
    if not numbers and not run.fusion_arrays:
        raise UserError(
            f"report: {path} must have results; it has none; run `headwise evaluate {path}` first"
        )
    environment = path / "environment.json"
    return Evaluation(
        name=path.resolve().name,
        numbers=numbers,
        arrays=run.arrays,
        config=run.config,
        environment=read_json(environment) if environment.is_file() else {},
    )


def number_text(measure: str, value: float) -> str:
    """Shares of test images in percent, without the sign."""
    if is_share(measure):
        text = f"{100 * value:.1f}"
    elif measure == "rank":
        text = f"{value:,.1f}"
    elif abs(value) >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.3f}"
    return text.replace("-", "−")


def is_share(measure: str) -> bool:
    """Whether a value is a share of test images."""
    return not measure.endswith(("_nmi", "_ari")) and bool(_SHARES.fullmatch(measure))


def _place(what: str) -> tuple[int, int]:
    """Along the model: encoder stages, h, head layers, z; then baselines."""
    for place, pattern in enumerate(_TAPS):
        if re.fullmatch(pattern, what):
            return place, int(what[1:]) if what[1:].isdigit() else 0
    return len(_TAPS), 0
