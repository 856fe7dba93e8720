"""One rule for the names of splits, whether they name folders, files or arrays."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from headwise.errors import UserError

WORDS = {
    "train": ("train", "training", "trainset", "trainval"),
    "test": ("test", "testing", "testset"),
    "holdout": ("holdout", "heldout"),
    "eval": ("eval", "evaluation", "evalset"),
    "val": ("val", "valid", "validation", "valset"),
    "dev": ("dev", "devset"),
}
"""The words that name each split. Training is the first; the others are in order of preference."""
TEST_NAMES = tuple(WORDS)[1:]
UNLABELLED = ("unlabeled", "unlabelled", "unsup", "unsupervised")
"""Words for images without labels."""
ASIDE = (*UNLABELLED, "extra", "pred", "predict", "prediction")
"""Words for images beside the splits that are neither for training nor for testing."""
FILLERS = ("set", "data", "images", "split", "part", "shard", "of")
"""Words beside a split's name that mean nothing."""

_SPLIT_OF = {word: split for split, words in WORDS.items() for word in words}


class SplitNames(NamedTuple):
    """How a source's names were read."""

    roles: dict[str, str]
    """The split of each name. {} if the names are not those of splits."""
    aside: tuple[str, ...]
    """Names beside the splits whose images are not used."""
    remark: str
    """What looks like a split but is not read as one. "" if nothing does."""


def words(name: str) -> list[str]:
    """Return the words of a name in lower case, without digits and signs."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    name = re.sub(r"(?i)\b(hold|held)[ _.-]out\b", "holdout", name.replace("_", " "))
    return re.findall(r"[^\W\d_]+", name.lower())


def split_of(name: str) -> str | None:
    """Return the split that a word of `name` says, or None."""
    return next((_SPLIT_OF[word] for word in words(name) if word in _SPLIT_OF), None)


def folder_splits(names: Iterable[str], where: str) -> SplitNames:
    """Read the names of folders that lie side by side. They are splits if one is for training, one
    is not, and they are alike apart from the word for the split. Raises `UserError` if they could
    be splits as well as classes."""
    names = sorted(names)
    named = {name: split for name in names if (split := split_of(name))}
    alike: dict[tuple[str, ...], list[str]] = {}
    for name in named:
        alike.setdefault(_rest(name), []).append(name)
    aside = tuple(name for name in names if name not in named and set(words(name)) & {*ASIDE})
    sets = [group for group in alike.values() if _is_split(group, named, aside)]
    taken = sets[0] if sets else []
    others = [name for name in names if name not in (*taken, *aside)]
    if taken and others:
        raise UserError(
            f"{where}: folders must be splits or classes, not both; {_listed(taken)} look like "
            f"splits, {_listed(others)} not: move one kind elsewhere, or rename it"
        )
    if taken:
        return SplitNames({name: named[name] for name in taken}, aside, "")
    if len(set(named.values())) > 1 and len(alike) == 1 and len(named) == len(names):
        raise UserError(
            f"{where}: {_listed(names)} look like splits, but none is for training: "
            "rename one to train, or give only one of them as the images"
        )
    looks = _listed(list(named))
    return SplitNames({}, (), f"{looks} read as classes, not as splits" if looks else "")


def file_splits(names: Sequence[str], where: str) -> SplitNames:
    """Read the paths of files without their ending. A file belongs to the split that its name says,
    or else its nearest folder. If none is for training, all of them are. Raises `UserError` if only
    some names say a split."""
    found = {name: _nearest(name) for name in names}
    aside = tuple(name for name in names if found[name] == "aside")
    roles = {name: split for name, split in found.items() if split not in (None, "aside")}
    unknown = [name for name in names if found[name] is None]
    if "train" not in roles.values():
        remark = f"{_listed([*roles, *aside])} read as training images: no name says train"
        return SplitNames({}, (), remark if roles or aside else "")
    if unknown:
        raise UserError(
            f"{where}: either all files must have the name of a split or none; "
            f"{_listed(list(roles))} have one, {_listed(unknown)} not: rename them, or choose "
            "files with a pattern (*)"
        )
    return SplitNames({name: str(split) for name, split in roles.items()}, aside, "")


def _is_split(group: list[str], named: dict[str, str], aside: Sequence[str]) -> bool:
    splits = {named[name] for name in group}
    return "train" in splits and (len(splits) > 1 or bool(aside))


def _rest(name: str) -> tuple[str, ...]:
    return tuple(word for word in words(name) if word not in _SPLIT_OF and word not in FILLERS)


def _nearest(path: str) -> str | None:
    for part in reversed(path.split("/")):
        split = split_of(part) or ("aside" if set(words(part)) & {*ASIDE} else None)
        if split is not None:
            return split
    return None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
