"""What a search is: the settings to begin with, those that are searched, and how trials are judged.

As a study, a search is data: search.json in its directory has it as it began.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from headwise.comparison.arms import SHARED, text_of
from headwise.config import check_fields, flat, leaves, to_dict, with_texts
from headwise.errors import UserError, nearest
from headwise.model.config import PretrainConfig, ResolvedConfig
from headwise.model.objective import settings_of
from headwise.study.design import headed

SEARCH_FILE = "search.json"
Criterion = Literal["rank", "twins", "knn"]
_FIXED = (*SHARED, "epochs")
"""What trials cannot differ in: a value at more epochs, or on other images, says something else."""
_RUNGS = 5
_FORMS = "SETTING=LOW..HIGH, SETTING=LOW..HIGH:log or SETTING=VALUE,VALUE"


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A setting, and the values that it may have: a range, or choices."""

    path: str
    """As in config.json: `head.output_size`."""
    low: float | None = None
    high: float | None = None
    log: bool = False
    """Draw evenly on a logarithmic scale."""
    whole: bool = False
    """Whole numbers alone."""
    choices: tuple[str, ...] = ()
    """As they are typed."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def ends(self) -> tuple[str, ...]:
        """Its choices, or the ends of its range: values that must be possible."""
        return self.choices or tuple(self.text(end) for end in (self.low, self.high))

    def text(self, value: Any) -> str:
        """A value as it is typed: of a range with three digits, and never outside of it."""
        if self.low is None or self.high is None:
            return str(value)
        if self.whole:
            return str(round(value))
        return f"{min(max(float(f'{value:.3g}'), self.low), self.high):g}"

    def allows(self, text: str) -> bool:
        """Whether this value is among those that it may have."""
        if self.low is None or self.high is None:
            return text in self.choices
        return self.low <= float(text) <= self.high if _is_number(text) else False


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search for settings of pretraining."""

    version: int = 1
    base: PretrainConfig
    """The settings that no trial changes. All trials have its seed."""
    settings: tuple[Searched, ...]
    criterion: Criterion = "rank"
    """What is to be large: RankMe of h, how often twins find each other by h, or k-NN accuracy of
    h, which needs labels."""
    trials: int = 20
    labelled: bool = False
    """Whether k-NN can be measured."""
    first: dict[str, str]
    """What the settings to begin with have, where the search allows it: the first trial."""
    words: tuple[str, ...] = ()
    """The flags of `headwise pretrain` that give the settings to begin with."""
    cells: str
    """The directory of runs, as seen from the search's."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def rungs(self) -> list[int]:
        """The epochs after which a trial is measured; the last is its end."""
        epochs = self.base.epochs
        return sorted({max(1, round(epochs * i / _RUNGS)) for i in range(1, _RUNGS + 1)})


def read_settings(written: Sequence[str]) -> tuple[Searched, ...]:
    """What `--search` says. Raises `UserError` for what it cannot mean."""
    found = [_read_one(one) for one in written]
    paths = [one.path for one in found]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise UserError(f"--search must name each setting once; got {twice[0]} twice")
    return tuple(found)


def _read_one(written: str) -> Searched:
    path, equals, values = written.partition("=")
    path = path.strip().replace("-", "_")
    if not (path and equals and values):
        raise UserError(f"--search takes {_FORMS}; got {written!r}")
    hints = leaves(PretrainConfig)
    if path not in hints:
        raise UserError(f"--search has no setting {path!r}; {nearest(path, hints)}")
    if any(path == name or path.startswith(f"{name}.") for name in _FIXED):
        raise UserError(
            f"--search cannot vary {path}, which must be the same for all trials; give it once: "
            f"--settings {path}=VALUE"
        )
    if ".." not in values:
        choices = tuple(dict.fromkeys(word.strip() for word in values.split(",")))
        if len(choices) < 2:
            raise UserError(
                f"--search needs two values of {path} or more; got {values!r}; for a value that "
                f"all trials have, give --settings {path}={values}"
            )
        return Searched(path=path, choices=choices)
    return _read_range(path, values, hints[path])


def _read_range(path: str, values: str, hint: Any) -> Searched:
    kinds = {*(get_args(hint) or (hint,))}
    if not kinds & {int, float}:
        raise UserError(
            f"--search {path} is not a number and has no range; got {values!r}; give its values: "
            f"{path}=VALUE,VALUE"
        )
    span, _, scale = values.partition(":")
    low, _, high = span.partition("..")
    log, whole = scale == "log", float not in kinds
    if scale not in ("", "log") or not (_is_number(low) and _is_number(high)):
        raise UserError(f"--search takes {_FORMS}; got {path}={values}")
    if not float(low) < float(high) or (log and float(low) <= 0):
        must = "two positive numbers" if log else "two numbers"
        raise UserError(f"--search {path} must have {must}, the lower first; got {values!r}")
    if whole and not (float(low).is_integer() and float(high).is_integer()):
        raise UserError(f"--search {path} takes whole numbers; got {values!r}")
    return Searched(path=path, low=float(low), high=float(high), log=log, whole=whole)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def usual_settings(config: ResolvedConfig) -> tuple[Searched, ...]:
    """What is searched where nothing is named: temperature, learning rate, weight decay, the size
    of z and the strength of colour distortion, where these settings have them."""
    rate, decay = config.optim.lr, config.optim.weight_decay
    lasting = [] if config.head.output_size is None else ["head.output_size=32..512:log"]
    lasting += ["temperature=0.05..1:log"] * ("temperature" in settings_of(config.objective))
    lasting += [f"optim.weight_decay={decay / 30:.3g}..{decay * 30:.3g}:log"] * (decay > 0)
    lasting += ["augment.strength=0.1..1"] * ("colour" in (config.augment.ops or ()))
    return read_settings([f"optim.lr={rate / 10:g}..{rate * 10:g}:log", *lasting])


def first_of(settings: Sequence[Searched], config: ResolvedConfig) -> dict[str, str]:
    """The values that the settings to begin with have, where the search allows them."""
    own = flat(to_dict(config))
    texts = {one.path: text_of(own[one.path]) for one in settings if one.path in own}
    return {one.path: texts[one.path] for one in settings if one.allows(texts.get(one.path, ""))}


def config_with(base: PretrainConfig, settings: Mapping[str, str]) -> PretrainConfig:
    """These settings, as typed, over others. Raises `UserError` where they cannot be."""
    return with_texts(*headed(base, settings))


def check_ends(base: PretrainConfig, settings: Sequence[Searched]) -> None:
    """Raise `UserError` where a choice, or an end of a range, cannot be."""
    for path, text in _each_end(settings):
        try:
            config_with(base, {path: text})
        except UserError as error:
            raise UserError(f"--search {path}={text}: {error}") from None


def _each_end(settings: Sequence[Searched]) -> Iterator[tuple[str, str]]:
    # A setting of another head can only be tried with that head.
    heads = any(one.path == "head.name" for one in settings)
    for one in settings:
        if not (heads and one.path.startswith("head.") and one.path != "head.name"):
            yield from ((one.path, text) for text in one.ends)
