"""`summary.json` of a comparison, checked: scores by head and measure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from headwise.errors import UserError
from headwise.evaluation.statistics.scores import Score, is_accuracy
from headwise.report.reading.files import read_object

Scores = dict[str, dict[str, float]]
"""By head or baseline, then by measure: `linear/h`, `rank/z`, `seconds`."""
Group = Literal["heads", "baselines"]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a comparison found: means over its seeds. What was not measured is left out."""

    heads: Scores
    """In the order in which they are shown."""
    baselines: Scores = field(default_factory=dict)
    """`pixels` and `untrained`."""
    deviations: dict[str, Scores] = field(default_factory=dict)
    """Sample standard deviations over seeds, by `heads` and `baselines`."""
    p_values: dict[str, Scores] = field(default_factory=dict)
    """By measure, head and other head: a paired test, image by image, with one seed."""
    factors: dict[str, Scores] = field(default_factory=dict)
    """By head, tap and factor."""
    learned: dict[str, str] = field(default_factory=dict)
    """A sentence for each head."""
    data: str = "unnamed images"
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

    def score(self, group: Group, name: str, key: str) -> Score | None:
        """A score with its error; None if it was not measured.

        Raw pixels have no taps: their "knn" stands for "knn/h". With several seeds a missing
        standard deviation counts as zero (pixels have no seed).
        """
        values = self.heads if group == "heads" else self.baselines
        value = _lookup(values.get(name, {}), key)
        if value is None:
            return None
        if self.seeds > 1:
            deviations = self.deviations.get(group, {})
            spread = _lookup(deviations.get(name, {}), key) or 0.0
            error = spread / math.sqrt(self.seeds)
            return Score(value=value, spread=spread, error=error, freedom=self.seeds - 1.0)
        binomial = is_accuracy(key) and self.n_test and 0 <= value <= 1
        error = math.sqrt(value * (1 - value) / self.n_test) if binomial and self.n_test else 0.0
        paired = self.p_values.get(key, {}).get(name, {}) if group == "heads" else {}
        return Score(value=value, spread=error, error=error, freedom=math.inf, p_values=paired)

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
        deviations={group: _scores(v) for group, v in _object(found.get("std")).items()},
        p_values={key: _scores(v) for key, v in _object(found.get("p_values")).items()},
        factors={head: _scores(v) for head, v in _object(found.get("factors")).items()},
        learned={name: str(words) for name, words in _object(found.get("learned")).items()},
        data=str(found.get("data") or "unnamed images"),
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


def _number(value: object) -> float | None:
    """None if it is missing, null or not finite."""
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise UserError(f"report: summary.json must hold numbers; got {value!r}")
    return float(value) if math.isfinite(value) else None


def _lookup(values: Mapping[str, float], key: str) -> float | None:
    return values.get(key, values.get(key.removesuffix("/h")))
