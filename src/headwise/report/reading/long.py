"""Every number of runs and comparisons in long form, for other programs: one row for each value, or
one for each answer to a test image."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from headwise.data.names import Names, contiguous_names
from headwise.errors import UserError
from headwise.files import read_object
from headwise.runs.directory import Run, load_arrays
from headwise.runs.results import Result
from headwise.runs.sections import Section


@dataclass(frozen=True, kw_only=True)
class Number:
    """A row of the table of numbers. What is not known is None."""

    run: str
    """The directory; of a comparison's baselines, the comparison."""
    setting: str
    """What was varied: the head, in a comparison the arm or the baseline."""
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
    unit: str
    value: float
    low: float | None
    """95 % interval over test images."""
    high: float | None
    n: int
    """How many images, or pairs, the value is computed from."""
    against: str | None
    """Of a difference: the other run."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A row of the table of answers: what one probe said of one test image."""

    run: str
    setting: str
    seed: int | None
    data: str
    images: str
    protocol: str
    measure: str
    tap: str
    """All of these as in `Number`."""
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


def numbers(paths: Iterable[str | Path], keys: Sequence[str] = ()) -> Iterator[Number]:
    """The results of runs and comparisons, in the order given. `keys`: only these, such as
    `linear/h`. Raises `UserError` for a directory that is neither."""
    for path in map(Path, paths):
        for source in _sources(path):
            for section in source.run.sections:
                for key, result in section.results.items():
                    if not keys or key in keys:
                        yield _number(source, section, result)
        for about, key, each, _ in _baselines(path):
            if not keys or key in keys:
                unknown = {"low": None, "high": None, "against": None}
                value = float(each.mean())
                yield Number(**about, **unknown, unit="share", value=value, n=len(each))


def answers(paths: Iterable[str | Path], keys: Sequence[str] = ()) -> Iterator[Answer]:
    """What each probe said of each test image; as `numbers`."""
    for path in map(Path, paths):
        for source in _sources(path):
            for section in source.run.sections:
                yield from _answers(source, section, source.run.arrays(section.data), keys)
        names, classes = _test_images(path)
        for about, key, each, kept in _baselines(path):
            if not keys or key in keys:
                yield from _rows(about, each, kept, names, classes)


def _sources(path: Path) -> list[_Source]:
    """The runs of a comparison by setting and seed, or the run itself."""
    if not (path / "config.json").is_file():
        raise UserError(
            f"results needs directories of runs or comparisons; {path} has no config.json; check "
            "the path"
        )
    config = read_object(path / "config.json")
    if "pretrain" not in config:
        return [_Source(run=Run(path), setting=config["head"]["name"], seed=config["seed"])]
    found = []
    for folder in path.iterdir():
        setting, _, seed = folder.name.rpartition("-seed")
        if setting and seed.isdecimal() and (folder / "config.json").is_file():
            found.append(_Source(run=Run(folder), setting=setting, seed=int(seed)))
    return sorted(found, key=lambda source: (source.setting, source.seed or 0))


def _number(source: _Source, section: Section, result: Result) -> Number:
    low, high = result.interval or (None, None)
    key = result.key.removeprefix("difference/")
    return Number(
        run=str(source.run.path),
        setting=source.setting,
        seed=source.seed,
        data=section.data.spec,
        images=section.data.key,
        protocol=result.protocol,
        measure=key.partition("/")[0],
        tap=result.where,
        unit=result.unit,
        value=result.value,
        low=low,
        high=high,
        n=result.n,
        against=result.against,
    )


_About = dict[str, str | int | None]


def _answers(
    source: _Source, section: Section, arrays: dict[str, np.ndarray], keys: Sequence[str]
) -> Iterator[Answer]:
    names, classes = _names(arrays), section.data.classes
    for key, result in section.results.items():
        if (keys and key not in keys) or f"predictions/{key}" not in arrays:
            continue
        number = _number(source, section, result)
        about = {f.name: getattr(number, f.name) for f in fields(Answer) if f.name in _COMMON}
        own = f"truth/{key}" in arrays  # of another data set: a target of transfer
        kept = {kind: arrays[f"{kind}/{key}"] for kind in _KINDS if f"{kind}/{key}" in arrays}
        truth = kept.setdefault("truth", arrays.get("truth/constant", np.empty(0)))
        each = arrays.get(f"each/{key}", kept["predictions"] == truth)
        yield from _rows(about, each, kept, None if own else names, () if own else classes)


_KINDS = ("predictions", "margins", "truth")
_COMMON = ("run", "setting", "seed", "data", "images", "protocol", "measure", "tap")


def _rows(
    about: _About,
    each: np.ndarray,
    kept: dict[str, np.ndarray],
    names: Names | None,
    classes: Sequence[str],
) -> Iterator[Answer]:
    truth, predictions, margins = (kept.get(kind) for kind in ("truth", "predictions", "margins"))
    if truth is None or len(truth) != len(each) or (names is not None and len(names) != len(each)):
        raise UserError(
            f"results: {about['run']} must have one answer for each test image of "
            f"{about['measure']}/{about['tap']}; it has {len(each)} for "
            f"{0 if truth is None else len(truth)}; it was measured by an older version, or some "
            "images could not be read every time: evaluate it again"
        )

    def named(label: int) -> str:
        return classes[label] if 0 <= label < len(classes) else str(label)

    for place in range(len(each)):
        yield Answer(
            **about,  # type: ignore[arg-type]
            place=place,
            id="" if names is None else names[place],
            label=named(int(truth[place])),
            prediction="" if predictions is None else named(int(predictions[place])),
            right=float(each[place]),
            margin=None if margins is None else float(margins[place]),
        )


def _baselines(path: Path) -> Iterator[tuple[_About, str, np.ndarray, dict[str, np.ndarray]]]:
    """What a comparison kept of its baselines: for each seed and key what it is, right or wrong,
    and the answers."""
    if "pretrain" not in read_object(path / "config.json"):
        return
    first = _first_section(path)
    for file in sorted(path.glob("baselines-seed*.npz"), key=lambda f: (len(f.name), f.name)):
        arrays = load_arrays(file)
        for key in (key for key in arrays if key.count("/") == 1):
            measure, _, where = key.partition("/")
            about: _About = {
                "run": str(path),
                "setting": where,
                "seed": int(file.stem.removeprefix("baselines-seed")),
                "data": "" if first is None else first.data.spec,
                "images": "" if first is None else first.data.key,
                "protocol": measure,
                "measure": measure,
                "tap": where,
            }
            kept = {kind: arrays[f"{kind}/{key}"] for kind in _KINDS if f"{kind}/{key}" in arrays}
            yield about, key, arrays[key], {**kept, "truth": arrays["truth"]}


def _first_section(path: Path) -> Section | None:
    sections = (section for source in _sources(path) for section in source.run.sections)
    return next(sections, None)


def _test_images(path: Path) -> tuple[Names | None, tuple[str, ...]]:
    """The names of a comparison's test images, and of their classes."""
    section = _first_section(path)
    if section is None:
        return None, ()
    return _names(_sources(path)[0].run.arrays(section.data)), section.data.classes


def _names(arrays: dict[str, np.ndarray]) -> Names | None:
    """The names of the test images; None where an older version kept none."""
    if "names/constant" not in arrays:
        return None
    ends = arrays["lengths/constant"].cumsum(dtype=np.int64)
    return contiguous_names(arrays["names/constant"], ends)
