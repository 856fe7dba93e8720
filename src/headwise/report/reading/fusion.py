"""What `headwise fusion` wrote into a run directory: fusion.npz, and means over its batches."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from headwise.fusion.seed_runs import FusionOverSeeds
from headwise.fusion.verdict import estimate
from headwise.report.reading.training import too_short
from headwise.runs.directory import Run
from headwise.runs.sections import DataIdentity


class Interval(NamedTuple):
    """A mean over batches and its 95 % t-interval; NaN where nothing is known."""

    mean: Float[np.ndarray, "*shape"]
    low: Float[np.ndarray, "*shape"]
    high: Float[np.ndarray, "*shape"]


@dataclass(frozen=True, kw_only=True)
class FusionArrays:
    """The arrays of fusion.npz, numbers as float64."""

    arrays: dict[str, np.ndarray]

    @property
    def data(self) -> DataIdentity:
        """Which images; with an empty fingerprint in files of version 0.1."""
        names = ("spec", "fingerprint", "train_fingerprint")
        spec, test, train = (str(self.arrays.get(name, "")) for name in names)
        return DataIdentity(spec=spec, fingerprint=test, train_fingerprint=train)

    @property
    def taps(self) -> list[str]:
        """h, g1, …, z."""
        return self.arrays["taps"].tolist()

    @property
    def block_taps(self) -> list[str]:
        """Those right after an attention block; none for heads without."""
        return self.arrays["block_taps"].tolist()

    @property
    def classes(self) -> list[str]:
        return self.arrays["classes"].tolist()

    def class_names(self, labels: Int[np.ndarray, " s"]) -> list[str]:
        """One for each label; those without a name are their number."""
        names = self.classes
        return [names[i] if 0 <= i < len(names) else str(i) for i in labels]

    def get(self, name: str) -> np.ndarray | None:
        """None where it was not measured."""
        found = self.arrays.get(name)
        return found if found is not None and found.size else None

    def interval(self, name: str, axis: int = 0) -> Interval | None:
        """Over the axis of batches; None where it was not measured, nowhere."""
        found = self.get(name)
        return None if found is None or np.isnan(found).all() else batch_interval(found, axis)


def read_fusion(run_path: Path) -> FusionArrays | None:
    """None where `headwise fusion` has not run."""
    arrays = Run(run_path).fusion_arrays
    if not arrays:
        return None
    return FusionArrays(arrays={name: _double(array) for name, array in arrays.items()})


def short_runs(result: FusionOverSeeds) -> list[str]:
    """A sentence for each run that did not train long enough to judge its head; of runs that are
    not there any more nothing is known."""
    said = {
        seed: too_short(Run(Path(run)).metrics())
        for seed, run in zip(result.seeds, result.runs, strict=True)
    }
    return [f"Seed {seed}: {words}" for seed, words in said.items() if words]


def batch_interval(values: Float[np.ndarray, "*all"], axis: int = 0) -> Interval:
    """Mean and 95 % t-interval over the axis of batches. Of one batch no interval is known: both
    ends are NaN."""
    by_place = np.moveaxis(values, axis, -1)
    found = [estimate(batches) for batches in by_place.reshape(-1, by_place.shape[-1])]
    ends = np.array([[e.mean, e.low, e.high] for e in found]).T
    return Interval(*ends.reshape(3, *by_place.shape[:-1]))


def _double(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64) if values.dtype.kind == "f" else values
