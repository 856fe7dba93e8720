"""Keys of results.json in words."""

from collections.abc import Sequence
from functools import cache

from headwise.evaluation.config import PROTOCOLS, describe
from headwise.evaluation.protocols.description import METRIC_LABELS, Description
from headwise.fusion.description import FUSION
from headwise.report.tables.comparison import BASELINES


@cache
def protocol_of(key: str) -> tuple[str, Description] | None:
    """The protocol whose measure a key is, by its name; None for what no protocol measures, such as
    the loss."""
    known = {name: describe(name) for name in PROTOCOLS} | {"fusion": FUSION}
    found = {
        measure: (name, description)
        for name, description in known.items()
        for measure in description.labels
        if _stem(key) == measure or _stem(key).startswith(f"{measure}_")
    }
    return found[max(found, key=len)] if found else None


def measure_words(key: str) -> str:
    """`linear probe on h` for `linear/h`; `contrastive accuracy` for a measure of training."""
    stem, _, where = key.partition("/")
    if stem == "training":
        return where.replace("_", " ")
    on = " on " if where in ("h", "z") or where[1:].isdecimal() else ", "
    return stem_words(key) + (f"{on}{BASELINES.get(where, where)}" if where else "")


def stem_words(key: str) -> str:
    """`linear probe` for `linear/h`."""
    found = protocol_of(key)
    if found is None:
        return _stem(key).replace("_", " ")
    labels = found[1].labels
    measure = max((m for m in labels if f"{_stem(key)}_".startswith(f"{m}_")), key=len)
    rest = _stem(key).removeprefix(measure).removeprefix("_")
    for metric, words in METRIC_LABELS.items():
        if rest == metric or rest.endswith(f"_{metric}"):
            variant = rest.removesuffix(metric).removesuffix("_")
            return f"{_label(labels[measure], variant)}, {words}"
    return _label(labels[measure], rest)


def axis_words(unit: str, keys: Sequence[str]) -> str:
    """What stands beside an axis that shows these measures: as much as they share."""
    stems = dict.fromkeys(map(stem_words, keys))
    words = [measure_words(keys[0])] if len(set(keys)) == 1 else list(stems) * (len(stems) == 1)
    return ", ".join([*words, *(["%"] if unit == "share" else [])])


def _label(label: str, variant: str) -> str:
    return label.format(variant=variant.replace("_", " "))


def _stem(key: str) -> str:
    return key.partition("/")[0]
