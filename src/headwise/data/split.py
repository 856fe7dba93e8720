"""The choice of training and test images, and of their number, before any is decoded."""

import dataclasses

import torch
from jaxtyping import Int64
from torch import Tensor

from headwise import rng
from headwise.data.images import Images, Splits
from headwise.errors import UserError

TEST_NAMES = ("test", "val", "valid", "validation")
"""The names of a test split, in order of preference."""


def stratified_split(
    labels: Int64[Tensor, " n"], test_fraction: float, seed: int
) -> tuple[Int64[Tensor, " train"], Int64[Tensor, " test"]]:
    """Return ascending indices of the training and the test images, drawn class by class.

    Each side gets at least one image of every class with two or more; a single image is for
    training. The draw of a class depends only on the seed, its label and its size.
    """
    tests = [torch.empty(0, dtype=torch.int64)]
    classes, counts = labels.unique(return_counts=True)
    by_class = labels.argsort(stable=True).split(counts.tolist())
    for label, members in zip(classes.tolist(), by_class, strict=True):
        n = len(members)
        count = min(max(round(n * test_fraction), 1), n - 1)
        order = torch.randperm(n, generator=rng.generator(seed, "data split", label))
        tests.append(members[order[:count]])
    test = torch.cat(tests).sort().values
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[test] = False
    return rest.nonzero().flatten(), test


def balanced_fraction(
    labels: Int64[Tensor, " n"], fraction: float, seed: int, *, at_least: int = 1
) -> Int64[Tensor, " m"]:
    """Return ascending indices of equally many images of every class that together are this
    fraction: `at_least` this many per class, and all of a smaller class. A smaller fraction is a
    subset of a larger one."""
    classes, counts = labels.unique(return_counts=True)
    per_class = max(at_least, round(fraction * len(labels) / len(classes)))
    drawn = []
    by_class = labels.argsort(stable=True).split(counts.tolist())
    for label, members in zip(classes.tolist(), by_class, strict=True):
        order = torch.randperm(len(members), generator=rng.generator(seed, "fraction", label))
        drawn.append(members[order[:per_class]])
    return torch.cat(drawn).sort().values


def balanced_limit(labels: Int64[Tensor, " n"], limit: int) -> Int64[Tensor, " m"]:
    """Return ascending indices of at most `limit` images: the first of every class, then the second
    of every class, and so on. A smaller limit is a subset of a larger one."""
    by_class = labels.argsort(stable=True)
    counts = labels.unique(return_counts=True)[1]
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    turn = torch.empty_like(labels)
    turn[by_class] = torch.arange(len(labels)) - starts
    # The stable sort keeps the classes in order within a turn.
    return by_class[turn[by_class].argsort(stable=True)][:limit].sort().values


def limited(images: Images, limit: int | None) -> Images:
    """Return at most `limit` images, balanced over classes; without labels, the first ones."""
    if limit is None or limit >= len(images):
        return images
    if images.labels is None:
        return images.select(torch.arange(limit))
    return images.select(balanced_limit(images.labels, limit))


def own_split(parts: dict[str, Images], where: str) -> Splits:
    """Return the source's own splits: `train`, and the first test split in the order of
    `TEST_NAMES`, with labels if one has labels. The labels of both become indices into the classes
    of `train`. If there is only one class, the images count as unlabelled."""
    train = parts["train"]
    tests = [parts[name] for name in TEST_NAMES if name in parts]
    labelled = [test for test in tests if test.labels is not None]
    test = next(iter(labelled or tests), None)
    if len(train.classes) < 2:
        return Splits(_without_labels(train), None if test is None else _without_labels(test))
    return Splits(train, None if test is None else _relabelled(test, train.classes, where))


def _without_labels(images: Images) -> Images:
    return dataclasses.replace(images, labels=None, classes=())


def _relabelled(test: Images, classes: tuple[str, ...], where: str) -> Images:
    if test.labels is None or test.classes == classes:
        return dataclasses.replace(test, classes=() if test.labels is None else classes)
    unknown = [name for name in test.classes if name not in classes]
    if unknown:
        listed = ", ".join(map(repr, unknown[:10]))
        raise UserError(
            f"{where}: train and test must have the same classes; test has {listed}, which train "
            "lacks: rename the classes, or remove the test split so that one is drawn from train"
        )
    index = torch.tensor([classes.index(name) for name in test.classes])
    return dataclasses.replace(test, labels=index[test.labels], classes=classes)
