"""Every number of runs and comparisons in long form, for other programs: one row for each value, or
one for each answer to a test image."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headwise.data.names import Names, contiguous_names
from headwise.errors import UserError
from headwise.files import read_object, safe_name
from headwise.report.reading.summary import read_summary
from headwise.runs.directory import EVALUATED, Run, arm_folders, is_comparison, load_arrays
from headwise.runs.results import Result
from headwise.runs.sections import Section


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a number or an answer belongs to. What is not known is None."""

    run: str
    """The directory; for the baselines of a comparison, the comparison."""
    setting: str
    """What was varied: the head, in a comparison the arm or the baseline; without a run the encoder
    or the table."""
    seed: int | None
    """Of pretraining."""
    data: str
    """The spec of the images."""
    images: str
    """Which images, training and test: equal for equal ones."""
    protocol: str
    measure: str
    """With variant and metric: `linear`, `linear_top5`, `semi_10`."""
    tap: str
    """Where: a tap (`h`), a baseline, an arm (`scratch`), a pair of taps (`h-z`), a target."""

    @property
    def key(self) -> str:
        """As in results.json: `linear/h`."""
        return f"{self.measure}/{self.tap}" if self.tap else self.measure


@dataclass(frozen=True, kw_only=True)
class Number(Row):
    """A row of the table of numbers."""

    unit: str
    value: float
    low: float | None
    """95 % interval over test images."""
    high: float | None
    n: int
    """How many images, or pairs, the value is computed from."""
    against: str | None
    """For a difference: the other run."""


@dataclass(frozen=True, kw_only=True)
class Answer(Row):
    """A row of the table of answers: what one probe said of one test image."""

    place: int
    """The test image, counted from 0."""
    id: str
    """Its name in the source."""
    label: str
    """The name of its class."""
    prediction: str
    """The name of the class that was answered; empty where it was not kept."""
    right: float
    """1 or 0; with several seeds of the evaluation their mean (the others are of the first)."""
    margin: float | None
    """The score of the right class above the highest of the others, where classes have scores."""


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A run, and what it is in the tables."""

    run: Run
    setting: str
    seed: int | None


_Kept = dict[str, np.ndarray]
"""For each test image: `predictions`, `margins` and `truth`; what was not kept is missing."""
_KINDS = ("predictions", "margins", "truth")


def numbers(paths: Iterable[str | Path], keys: Sequence[str] = ()) -> Iterator[Number]:
    """The results of runs and comparisons, in the order given. `keys`: only these, such as
    `linear/h`. Raises `UserError` for a directory that is neither."""
    for path in map(Path, paths):
        for source in _sources(path):
            for section in source.run.sections:
                for key, result in section.results.items():
                    if not keys or key in keys:
                        yield _number(source, section, result)
        for row, each, _ in _baselines(path):
            if not keys or row.key in keys:
                share, n = float(each.mean()), len(each)
                yield Number(
                    **vars(row), unit="share", value=share, low=None, high=None, n=n, against=None
                )


def answers(paths: Iterable[str | Path], keys: Sequence[str] = ()) -> Iterator[Answer]:
    """What each probe said of each test image; as `numbers`."""
    for path in map(Path, paths):
        names, classes = None, ()
        for source in _sources(path):
            for section in source.run.sections:
                arrays = source.run.arrays(section.data)
                yield from _answers(source, section, arrays, keys)
                names, classes = names or _names(arrays), classes or section.data.classes
        for row, each, kept in _baselines(path):
            if not keys or row.key in keys:
                yield from _rows(row, each, kept, names, classes)


def _sources(path: Path) -> list[_Source]:
    """The runs of a comparison by arm and seed, or the run itself."""
    if not (path / "config.json").is_file():
        raise UserError(
            f"results needs directories of runs or comparisons; {path} has no config.json; check "
            "the path"
        )
    config = read_object(path / "config.json")
    if EVALUATED in config:
        return [_Source(run=Run(path), setting=next(iter(config[EVALUATED].values())), seed=None)]
    if not is_comparison(path):
        return [_Source(run=Run(path), setting=config["head"]["name"], seed=config["seed"])]
    arms = {safe_name(arm): arm for arm in config.get("arms", ())}
    known = read_summary(path / "summary.json").runs if "runs" in config else {}
    found = [
        _Source(run=Run(Path(place)), setting=arm, seed=int(seed))
        for arm, places in known.items()
        for seed, place in places.items()
    ]
    for arm, seed, folder in arm_folders(path):
        if (folder / "config.json").is_file():
            found.append(_Source(run=Run(folder), setting=arms.get(arm, arm), seed=seed))
    return sorted(found, key=lambda source: (source.setting, source.seed or 0))


def _row(source: _Source, section: Section, result: Result) -> Row:
    return Row(
        run=str(source.run.path),
        setting=source.setting,
        seed=source.seed,
        data=section.data.spec,
        images=section.data.key,
        protocol=result.protocol,
        measure=result.key.removeprefix("difference/").partition("/")[0],
        tap=result.where,
    )


def _number(source: _Source, section: Section, result: Result) -> Number:
    low, high = result.interval or (None, None)
    return Number(
        **vars(_row(source, section, result)),
        unit=result.unit,
        value=result.value,
        low=low,
        high=high,
        n=result.n,
        against=result.against,
    )


def _answers(
    source: _Source, section: Section, arrays: dict[str, np.ndarray], keys: Sequence[str]
) -> Iterator[Answer]:
    names, classes = _names(arrays), section.data.classes
    for key, result in section.results.items():
        if (keys and key not in keys) or f"predictions/{key}" not in arrays:
            continue
        kept = _kept(arrays, key)
        elsewhere = "truth" in kept  # a target of transfer has its own images
        truth = kept.setdefault("truth", arrays.get("truth/constant", np.empty(0)))
        each = arrays.get(f"each/{key}", kept["predictions"] == truth)
        row = _row(source, section, result)
        yield from _rows(
            row, each, kept, None if elsewhere else names, () if elsewhere else classes
        )


def _kept(arrays: dict[str, np.ndarray], key: str) -> _Kept:
    return {kind: arrays[f"{kind}/{key}"] for kind in _KINDS if f"{kind}/{key}" in arrays}


def _rows(
    row: Row, each: np.ndarray, kept: _Kept, names: Names | None, classes: Sequence[str]
) -> Iterator[Answer]:
    truth, predictions, margins = kept["truth"], kept.get("predictions"), kept.get("margins")
    if not len(each) == len(truth) == len(each if names is None else names):
        raise UserError(
            f"results: {row.run} must have one answer to each test image for {row.key}; it has "
            f"{len(each)} for {len(truth)}; it was measured by an older version, or some images "
            "could not be read every time: evaluate it again"
        )

    def named(label: int) -> str:
        return classes[label] if 0 <= label < len(classes) else str(label)

    for place in range(len(each)):
        yield Answer(
            **vars(row),
            place=place,
            id="" if names is None else names[place],
            label=named(int(truth[place])),
            prediction="" if predictions is None else named(int(predictions[place])),
            right=float(each[place]),
            margin=None if margins is None else float(margins[place]),
        )


def _baselines(path: Path) -> Iterator[tuple[Row, np.ndarray, _Kept]]:
    """What a comparison kept of its baselines, by seed and key: right or wrong, and the answers."""
    if not is_comparison(path):
        return
    data = next((s.data for source in _sources(path) for s in source.run.sections), None)
    for file in sorted(path.glob("baselines-seed*.npz"), key=lambda f: (len(f.name), f.name)):
        arrays = load_arrays(file)
        for key in (key for key in arrays if key.count("/") == 1):
            measure, _, where = key.partition("/")
            row = Row(
                run=str(path),
                setting=where,
                seed=int(file.stem.removeprefix("baselines-seed")),
                data="" if data is None else data.spec,
                images="" if data is None else data.key,
                protocol=measure,
                measure=measure,
                tap=where,
            )
            yield row, arrays[key], {**_kept(arrays, key), "truth": arrays["truth"]}


def _names(arrays: dict[str, np.ndarray]) -> Names | None:
    """The names of the test images; None where an older version kept none."""
    if "names/constant" not in arrays:
        return None
    ends = arrays["lengths/constant"].cumsum(dtype=np.int64)
    return contiguous_names(arrays["names/constant"], ends)
