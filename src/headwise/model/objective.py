"""What a step minimises: a contrastive loss over the batch, and a pull towards class directions for
the images whose labels are known."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from headwise import rng
from headwise.config import check_fields
from headwise.data import Images
from headwise.data.split import balanced_fraction
from headwise.errors import UserError
from headwise.losses import (
    Method,
    NtXent,
    affinity_loss,
    contrastive_accuracy,
    contrastive_logits,
    direction_regression,
    nt_xent_and_accuracy,
    orthonormal_directions,
)
from headwise.own_code import OwnCode

Objective = Literal["nt-xent", "affinity"]


@dataclass(frozen=True, kw_only=True)
class ClassDirectionsConfig:
    """Orthonormal Anchor Regression (arXiv 2403.18699): pulls the z of images with known labels
    towards the direction of their class. The directions are orthonormal, one for each class."""

    fraction: float = 0.0
    """Fraction of each class of the training images whose labels are used. 0: none."""
    weight: float = 1.0
    """Weight of this term; the contrastive loss has weight 1."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.fraction <= 1:
            raise UserError(f"--class-directions.fraction must be from 0 to 1; got {self.fraction}")
        if not 0 < self.weight < float("inf"):
            raise UserError(f"--class-directions.weight must be positive; got {self.weight}")


class ClassTargets(NamedTuple):
    """The labels that the loss may use, and the direction of each class."""

    labels: Int64[Tensor, " n"]
    """Of all training images; -1 where unknown."""
    directions: Float[Tensor, "classes d"]
    weight: float

    def at(self, shown: Int64[Tensor, " k"]) -> "ClassTargets":
        """The targets of the images that the rows of a batch show."""
        return self._replace(labels=self.labels[shown.cpu()])


def class_targets(
    config: ClassDirectionsConfig, images: Images, d: int, seed: int
) -> ClassTargets | None:
    """The targets for these images; None if the config asks for none. Raises `UserError` for
    images without labels and for more classes than `d`."""
    if config.fraction == 0:
        return None
    if images.labels is None:
        raise UserError(
            "--class-directions.fraction above 0 needs labelled training images; these have none"
        )
    labels = images.labels.cpu()
    kept = labels
    if config.fraction < 1:
        known = balanced_fraction(labels, config.fraction, rng.seed_at(seed, "anchored"))
        kept = torch.full_like(labels, -1)
        kept[known] = labels[known]
    return ClassTargets(kept, orthonormal_directions(len(images.classes), d, seed), config.weight)


def contrastive(
    objective: Objective | Literal["own"],
    z0: Float[Tensor, "n d"],
    z1: Float[Tensor, "n d"],
    temperature: float,
    *,
    method: Method = "auto",
    groups: int = 1,
    forms: int = 1,
    own: OwnCode | None = None,
) -> NtXent:
    """The loss and the contrastive accuracy of two views. With several `groups` the images fall
    into so many parts, one after the other, and a row's candidates are those of its own part.
    With several `forms` a row of `z` holds so many vectors side by side; the result is the mean of
    those of each form. `own`: the function of the objective of that name."""
    if forms > 1:
        pairs = zip(z0.chunk(forms, 1), z1.chunk(forms, 1), strict=True)
        each = [
            contrastive(objective, a, b, temperature, method=method, groups=groups, own=own)
            for a, b in pairs
        ]
        return NtXent(*(torch.stack(column).mean() for column in zip(*each, strict=True)))
    if groups > 1:
        parts = list(zip(z0.chunk(groups), z1.chunk(groups), strict=True))
        found = [
            contrastive(objective, a, b, temperature, method=method, own=own) for a, b in parts
        ]
        shares = [len(a) / len(z0) for a, _ in parts]
        weighted = [[share * x for x in one] for share, one in zip(shares, found, strict=True)]
        return NtXent(*(torch.stack(column).sum() for column in zip(*weighted, strict=True)))
    match objective:
        case "nt-xent":
            return nt_xent_and_accuracy(z0, z1, temperature, method)
        case "affinity":
            accuracy = contrastive_accuracy(*contrastive_logits(z0.detach(), z1.detach(), 1.0))
            return NtXent(affinity_loss(z0, z1), accuracy)
        case "own":
            accuracy = contrastive_accuracy(*contrastive_logits(z0.detach(), z1.detach(), 1.0))
            assert own is not None, "an own objective has a function"
            return NtXent(own.called("objective", z0, z1), accuracy)


def try_own(code: OwnCode, d: int) -> None:
    """Call an own loss on noise. Raises `UserError` if it fails, or gives anything but a finite
    number with a gradient."""
    if isinstance(code.code, nn.Module) and any(True for _ in code.code.parameters()):
        raise UserError(
            f"the objective {code.words} must have no parameters, which would not be trained"
        )
    with rng.seeded(0, "own objective"):
        z = torch.randn(2, 4, d, requires_grad=True)
        loss = code.called("objective", *z)
    if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
        got = list(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise UserError(
            f"the objective {code.words} must return one number, a tensor of shape []; got {got}"
        )
    if not loss.isfinite():
        raise UserError(
            f"the objective {code.words} must be finite; for z of noise it is {loss.item()}"
        )
    if not loss.requires_grad:
        raise UserError(f"the objective {code.words} must have a gradient with respect to z")


def class_direction_loss(target: ClassTargets, z: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """The class directions' part of the loss, for the two views of a batch with these targets, and
    for all forms of their rows."""
    labels = target.labels.repeat(len(z) // len(target.labels)).to(z.device)
    return target.weight * direction_regression(z, labels, target.directions.to(z))
