"""Labels: whether they are there and fit, and what is reached by guessing them."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headwise.data import Splits
from headwise.errors import UserError

UNBALANCED = 1.5
"""From this many times its even share on, the largest class decides what an accuracy says."""


def labelled(images: Splits) -> bool:
    """Whether there are training and test images, both with labels."""
    train, test = images
    return (
        train.labels is not None and test is not None and len(test) > 0 and test.labels is not None
    )


def check_classes(who: str, labels: Int[Tensor, " n"]) -> None:
    """Raise `UserError` unless there are two classes."""
    count = len(labels.unique())
    if count < 2:
        raise UserError(f"{who} needs images of at least 2 classes; got {count}")


def check_seen(
    who: str, labels: Int[Tensor, " n"], asked: Int[Tensor, " m"], names: Sequence[str] = ()
) -> None:
    """Raise `UserError` for a test label that is not among the training labels."""
    unseen = asked[~torch.isin(asked, labels)]
    if len(unseen):
        which = repr(names[int(unseen[0])]) if names else unseen[0].item()
        raise UserError(
            f"{who} needs test labels that are among the training labels; "
            f"got class {which} in the test split only"
        )


def constant_answer(
    labels: Int[Tensor, " n"], truth: Int[Tensor, " m"], top: int = 1
) -> Bool[Tensor, " m"]:
    """For which test images it is right to answer always with the `top` commonest training labels;
    of equals, the lowest."""
    classes, counts = labels.unique(return_counts=True)
    common = classes[counts.argsort(descending=True, stable=True)]
    return torch.isin(truth, common[:top])


def chance(labels: Int[Tensor, " n"], truth: Int[Tensor, " m"], top: int = 1) -> float:
    """The accuracy of the constant answer: what "chance" means for every accuracy."""
    return constant_answer(labels, truth, top).double().mean().item()


def unbalanced(truth: Int[Tensor, " m"]) -> bool:
    """Whether accuracy alone misleads: the largest class of the test images is at least
    `UNBALANCED` times its even share. Balanced accuracy then stands before it."""
    counts = truth.unique(return_counts=True)[1]
    return bool(counts.max() * len(counts) >= UNBALANCED * counts.sum())
