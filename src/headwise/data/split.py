"""The choice of training and test images, and of their number, before any is decoded."""

import dataclasses
import logging
import os

import torch
from jaxtyping import Int64
from torch import Tensor

from headwise import rng
from headwise.data.images import Images, Splits
from headwise.data.names import Names
from headwise.data.split_names import TEST_NAMES
from headwise.errors import UserError

logger = logging.getLogger("headwise")


def stratified_split(
    labels: Int64[Tensor, " n"], test_fraction: float, seed: int
) -> tuple[Int64[Tensor, " train"], Int64[Tensor, " test"]]:
    """Return ascending indices of the training and the test images, drawn class by class.

    Each side gets at least one image of every class with two or more; a single image is for
    training, and so are those without a label (−1). The draw of a class depends only on the seed,
    its label and its size.
    """
    tests = [torch.empty(0, dtype=torch.int64)]
    for label, members in by_class(labels):
        n = len(members)
        count = min(max(round(n * test_fraction), 1), n - 1)
        order = torch.randperm(n, generator=rng.generator(seed, "data split", label))
        tests.append(members[order[:count]])
    test = torch.cat(tests).sort().values
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[test] = False
    return rest.nonzero().flatten(), test


def split_by_name(
    labels: Int64[Tensor, " n"],
    names: Names,
    test_fraction: float,
    seed: int,
    *,
    purpose: str = "data split",
) -> tuple[Int64[Tensor, " train"], Int64[Tensor, " test"]]:
    """Return ascending indices of the training and the test images: about `test_fraction` of every
    class is for testing. Draws of other purposes are independent.

    The name of an image decides, without the folders around all images: an image more or less
    moves no other. Each side gets at least one image of every class, as in `stratified_split`: the
    next by the same draw, if there is none.
    """
    shared = os.path.commonprefix([names[0], names[-1]]).rfind("/") + 1  # noqa: RUF071
    own = Names(names.text, names.starts + len(os.fsencode(names[0][:shared])), names.ends)
    drawn = torch.from_numpy(own.digests(f"{purpose} {seed}") / 2.0**64)
    test = (drawn < test_fraction) & (labels >= 0)
    for _, members in by_class(labels):
        if len(members) == 1 or test[members].all():
            test[members[drawn[members].argmax()]] = False
        elif not test[members].any():
            test[members[drawn[members].argmin()]] = True
    return (~test).nonzero().flatten(), test.nonzero().flatten()


def balanced_fraction(
    labels: Int64[Tensor, " n"], fraction: float, seed: int, *, at_least: int = 1
) -> Int64[Tensor, " m"]:
    """Return ascending indices of equally many images of every class that together are this
    fraction: `at_least` this many per class, and all of a smaller class. A smaller fraction is a
    subset of a larger one. Images without a label (−1) do not count."""
    classes = by_class(labels)
    n = sum(len(members) for _, members in classes)
    per_class = max(at_least, round(fraction * n / len(classes)))
    drawn = []
    for label, members in classes:
        order = torch.randperm(len(members), generator=rng.generator(seed, "fraction", label))
        drawn.append(members[order[:per_class]])
    return torch.cat(drawn).sort().values


def by_class(labels: Int64[Tensor, " n"]) -> list[tuple[int, Tensor]]:
    """Return each label and the ascending indices of its images, without those of no label."""
    classes, counts = labels.unique(return_counts=True)
    by_class = labels.argsort(stable=True).split(counts.tolist())
    pairs = zip(classes.tolist(), by_class, strict=True)
    return [(label, members) for label, members in pairs if label >= 0]


def only_labelled(images: Images) -> Images:
    """Return the images that have a label, or all if none has."""
    if images.labels is None or not (images.labels < 0).any():
        return images
    labelled = images.select((images.labels >= 0).nonzero().flatten().cpu())
    return dataclasses.replace(labelled, opened=images.opened)


def labelled_splits(splits: Splits) -> Splits:
    """Return what probes may use: the images that have a label, or all of a split if none has."""
    train, test = splits
    return Splits(only_labelled(train), None if test is None else only_labelled(test))


def test_images(splits: Splits) -> Images:
    """Return the test images; where there are none, the training images."""
    return splits.train if splits.test is None or not len(splits.test) else splits.test


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


def own_split(parts: dict[str, Images], where: str, rule: str) -> Splits:
    """Return the source's own splits: `train`, and the first test split in the order of
    `TEST_NAMES`, with labels if one has labels. The labels of both become indices into the classes
    of `train`. If there is only one class, the images count as unlabelled."""
    train = dataclasses.replace(parts["train"], split_rule=rule)
    names = [name for name in TEST_NAMES if name in parts]
    chosen = next((name for name in names if parts[name].labels is not None), next(iter(names), ""))
    for name in names:
        if name != chosen:
            n = len(parts[name])
            logger.warning(
                "%s: %d images of %s are not used: %s is tested on", where, n, name, chosen
            )
    test = dataclasses.replace(parts[chosen], split_rule=rule) if chosen else None
    if len(train.classes) < 2:
        return Splits(_without_labels(train), None if test is None else _without_labels(test))
    if test is not None and test.labels is None:
        logger.warning(
            "%s: the images of %s have no labels, so nothing can be tested on them; to have test "
            "images drawn from the training images, give those alone as the images",
            where,
            chosen,
        )
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
    # A missing label, −1, indexes the last entry.
    index = torch.tensor([*(classes.index(name) for name in test.classes), -1])
    return dataclasses.replace(test, labels=index[test.labels], classes=classes)
