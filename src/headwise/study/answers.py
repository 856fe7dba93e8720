"""The numbers of a study's finished runs: by arm and measure, for every seed and test image."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headwise.model.trained import load_config
from headwise.report.reading.study import Levels
from headwise.runs.directory import Run, load_arrays
from headwise.runs.results import Unit
from headwise.study.design import Study, arm_name
from headwise.study.measuring import baselines_path
from headwise.study.place import Begun, Placed, run_path, state

BySeed = dict[int, np.ndarray]
"""By seed: right or wrong, or another number, of every test image; or one number twice."""

_TRAINING: dict[str, Unit] = {
    "loss": "nat",
    "contrastive_accuracy": "share",
    "contrastive_entropy": "nat",
    "alignment": "distance",
    "uniformity": "nat",
    "rank_h": "rank",
    "rank_z": "rank",
}
"""Of the last record of metrics.jsonl: what is measured by `training/loss` and so on."""


@runtime_checkable
class Answers(Protocol):
    """What claims are judged by."""

    arms: dict[str, Levels]
    """The levels of every arm, by its name."""
    units: dict[str, str]
    """Of every measure that was read."""

    def of(self, arm: str, measure: str) -> BySeed:
        """What the arm's finished runs have of a measure; those that do not have it are missing."""
        ...


class Numbers:
    """The answers of a study's runs, each read once."""

    def __init__(self, folder: Path, begun: Begun, plan: list[Placed]) -> None:
        done = state(folder).done
        self._study: Study = begun.study
        self._arrays: dict[str, dict[str, np.ndarray]] = {}
        self.units: dict[str, str] = {}
        self.arms: dict[str, Levels] = {arm_name(one.levels): one.levels for one in plan}
        self.placed: dict[str, list[Placed]] = {arm: [] for arm in self.arms}
        """The finished cells of every arm, by seed."""
        for one in plan:
            if one.name in done:
                self.placed[arm_name(one.levels)].append(one)
        self._paths = {one.name: run_path(folder, begun, one) for one in plan}

    def run(self, one: Placed) -> Run:
        return Run(self._paths[one.name])

    def of(self, arm: str, measure: str) -> BySeed:
        """As in `Answers`."""
        found = {}
        for one in self.placed[arm]:
            known = self._known(one)
            if measure in known:
                found[one.seed] = known[measure]
        return found

    def measures(self) -> list[str]:
        """All that any run has."""
        every = (self._known(one) for some in self.placed.values() for one in some)
        return list(dict.fromkeys(key for known in every for key in known))

    def _known(self, one: Placed) -> dict[str, np.ndarray]:
        if one.name not in self._arrays:
            self._arrays[one.name] = self._read(one)
        return self._arrays[one.name]

    def _read(self, one: Placed) -> dict[str, np.ndarray]:
        run, found = self.run(one), {}
        section = next((s for s in run.sections if s.data.key == one.section), None)
        if section is None:
            return {}
        arrays = run.arrays(section.data)
        for key, result in section.results.items():
            if result.against is None:
                self.units[key] = result.unit
                found[key] = arrays.get(f"each/{key}", _one(result.value))
        if self._study.baselines:
            path = baselines_path(
                self._paths[one.name].parent, self._study, load_config(run), one.section
            )
            rights = {k: v for k, v in load_arrays(path).items() if v.ndim and k.count("/") == 1}
            for key in rights:
                protocol, _, base = key.partition("/")
                if protocol not in ("predictions", "margins"):
                    found[key] = rights[key]
                    self.units[f"{protocol}/{base}"] = "share"
        for name, value in run.metrics()[-1].items():
            if name in _TRAINING:
                found[f"training/{name}"] = _one(value)
                self.units[f"training/{name}"] = _TRAINING[name]
        return found


def _one(value: float) -> np.ndarray:
    """One number of a seed, as that of two images that agree, so that only seeds vary."""
    return np.array([value, value], dtype=np.float64)


def stacked(rows: Mapping[int, np.ndarray], seeds: list[int]) -> Float[Tensor, "s n"]:
    return torch.from_numpy(np.stack([rows[seed] for seed in seeds])).double()
