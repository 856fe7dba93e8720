"""`summary.json` of a comparison, checked: scores by arm and measure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from headwise.config import from_dict
from headwise.errors import UserError
from headwise.evaluation.statistics.crossed import FEWEST_SEEDS
from headwise.evaluation.statistics.over_seeds import Difference
from headwise.report.reading.files import read_object

Scores = dict[str, dict[str, float]]
"""By arm or baseline, then by measure: `linear/h`, `rank/z`, `seconds`."""
Group = Literal["heads", "baselines"]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A value, and half of its 95 % interval where it is known."""

    value: float
    plus_minus: float | None = None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a comparison found: means over its seeds. What was not measured is left out."""

    heads: Scores
    """In the order in which they are shown."""
    baselines: Scores = field(default_factory=dict)
    """`pixels`, `untrained`, `start` and `scratch`."""
    plus_minus: dict[str, Scores] = field(default_factory=dict)
    """Half of the 95 % interval, by `heads` and `baselines`. With one seed it is about its
    networks, on other test images; with five or more, about other seeds too."""
    differences: dict[str, list[Difference]] = field(default_factory=dict)
    """`heads`: of `h` between two heads; `baselines`: of a head's `h` to a baseline's; `taps`: of a
    head's `h` to its `z`. Empty in files of before these tests."""
    unbalanced: bool = False
    """Whether accuracy alone misleads, so that the mean over classes leads."""
    recalls: Scores = field(default_factory=dict)
    """By head or baseline, then by class, by the leading probe at h; only where `unbalanced`."""
    factors: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """By head, tap and factor."""
    short: str = ""
    """A sentence, where the runs are too short to judge a head by."""
    data: str = "unnamed images"
    runs: dict[str, dict[str, str]] = field(default_factory=dict)
    """The directory of each run by arm, then by seed; empty in older files."""
    differ: tuple[str, ...] = ()
    """The settings in which the arms differ, by path; empty in older files."""
    section: str = ""
    """Which section of every run's results.json the numbers are from; empty in older files."""
    images: int | None = None
    """Training images."""
    epochs: int | None = None
    classes: tuple[str, ...] = ()
    seeds: int = 1
    n_test: int | None = None
    """Labelled test images."""
    chance: float | None = None

    @property
    def noun(self) -> str:
        """What is compared: `head`, or `arm` where one has other settings than its head."""
        return "arm" if any(":" in name for name in self.heads) else "head"

    @property
    def judged(self) -> bool:
        """Whether there are enough seeds for a verdict on heads."""
        return self.seeds >= FEWEST_SEEDS

    @property
    def leading(self) -> str:
        """The measure that sentences are about; empty without labels."""
        for probe in ("linear", "knn"):
            for key in (f"{probe}_per_class/h" if self.unbalanced else "", f"{probe}/h"):
                if self.head_scores(key):
                    return key
        return ""

    def between(self, kind: str, measure: str) -> list[Difference]:
        """The differences of this kind in this measure."""
        return [one for one in self.differences.get(kind, ()) if one.measure == measure]

    def score(self, group: Group, name: str, key: str) -> Score | None:
        """None if it was not measured. In older files raw pixels have no taps: their "knn" stands
        for "knn/h"."""
        values = self.heads if group == "heads" else self.baselines
        value = _lookup(values.get(name, {}), key)
        if value is None:
            return None
        half = self.plus_minus.get(group, {}).get(name, {}).get(key)
        return Score(value=value, plus_minus=half)

    def head_scores(self, key: str) -> dict[str, Score]:
        """The heads that have `key`, in their order."""
        scores = {name: self.score("heads", name, key) for name in self.heads}
        return {name: score for name, score in scores.items() if score is not None}


def read_summary(path: Path) -> Summary:
    """Raises `UserError` if the file is missing, is not JSON, or names no head."""
    if not path.is_file():
        raise UserError(
            f"report: {path.parent} must be a directory that `headwise compare` finished; "
            "it has no summary.json; run `headwise compare` first or check the path"
        )
    return summary_of(read_object(path), path)


def summary_of(found: Mapping[str, Any], path: Path | str = "summary.json") -> Summary:
    """The summary in these fields of JSON, of this version or an older one."""
    heads = _scores(found.get("heads"))
    if not heads:
        raise UserError(
            f"report: {path} must name at least one head under 'heads'; "
            "it names none; run `headwise compare` again"
        )
    images, epochs, n_test = (_number(found.get(k)) for k in ("images", "epochs", "n_test"))
    return Summary(
        heads=heads,
        baselines=_scores(found.get("baselines")),
        plus_minus={group: _scores(v) for group, v in _object(found.get("plus_minus")).items()},
        differences={
            kind: [from_dict(Difference, one, str(path)) for one in _list(some)]
            for kind, some in _object(found.get("differences")).items()
        },
        recalls=_scores(found.get("recalls")),
        unbalanced=found.get("unbalanced") is True,
        factors={head: _scores(v) for head, v in _object(found.get("factors")).items()},
        short=str(found.get("short") or ""),
        data=str(found.get("data") or "unnamed images"),
        runs={
            arm: {seed: str(place) for seed, place in _object(places).items()}
            for arm, places in _object(found.get("runs")).items()
        },
        differ=tuple(map(str, _list(found.get("differ") or []))),
        section=str(found.get("section") or ""),
        images=None if images is None else int(images),
        epochs=None if epochs is None else int(epochs),
        classes=tuple(map(str, found.get("classes") or ())),
        seeds=int(_number(found.get("seeds")) or 1),
        n_test=None if n_test is None else int(n_test),
        chance=_number(found.get("chance")),
    )


def _scores(found: object) -> Scores:
    """Two levels of objects with numbers inside; null counts as not measured."""
    return {
        name: {
            key: number
            for key, value in _object(values).items()
            if (number := _number(value)) is not None
        }
        for name, values in _object(found).items()
    }


def _object(found: object) -> dict[str, object]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UserError(f"report: summary.json must hold objects by name; got {found!r}")
    return found


def _list(found: object) -> list[object]:
    if not isinstance(found, list):
        raise UserError(f"report: summary.json must hold lists of differences; got {found!r}")
    return found


def _number(value: object) -> float | None:
    """None if it is missing, null or not finite."""
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise UserError(f"report: summary.json must hold numbers; got {value!r}")
    return float(value) if math.isfinite(value) else None


def _lookup(values: Mapping[str, float], key: str) -> float | None:
    return values.get(key, values.get(key.removesuffix("/h")))
