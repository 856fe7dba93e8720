"""What a step minimises: a loss over the batch, and a pull towards class directions for the images
whose labels are known."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from headwise import rng
from headwise.config import check_fields
from headwise.data import Images
from headwise.data.split import balanced_fraction
from headwise.errors import UserError
from headwise.heads import HeadConfig
from headwise.losses import (
    Method,
    Negatives,
    NtXent,
    affinity_loss,
    class_cross_entropy,
    contrastive_accuracy,
    contrastive_logits,
    dcl,
    direction_regression,
    margin_triplet,
    nt_logistic,
    nt_xent_and_accuracy,
    orthonormal_directions,
    supcon,
)
from headwise.own_code import OwnCode

Objective = Literal[
    "nt-xent", "nt-logistic", "margin", "dcl", "supcon", "cross-entropy", "affinity"
]
LABELLED: tuple[Objective | Literal["own"], ...] = ("supcon", "cross-entropy")
"""The objectives that need labels."""


def settings_of(objective: Objective | Literal["own"]) -> tuple[str, ...]:
    """The settings of a run that are this objective's: others have no effect with it."""
    match objective:
        case "nt-xent":
            return ("temperature", "normalised", "loss", "exclude_group")
        case "nt-logistic":
            return ("temperature", "normalised", "negatives")
        case "dcl" | "supcon":
            return ("temperature", "normalised")
        case "margin":
            return ("margin", "negatives")
        case _:
            return ()


def with_setting(name: str) -> str:
    """The objectives that have a setting, in words."""
    *others, last = [o for o in get_args(Objective) if name in settings_of(o)]
    return "--objective " + " or ".join(filter(None, [", ".join(others), last]))


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
    """The labels that the loss may use, and the direction of each class if it uses them."""

    labels: Int64[Tensor, " n"]
    """Of all training images; -1 where unknown."""
    directions: Float[Tensor, "classes d"] | None = None
    weight: float = 1.0
    mates: Int64[Tensor, " n"] | None = None
    """Equal for images that are no negatives of each other. None: only views of one image."""

    def at(self, shown: Int64[Tensor, " k"]) -> "ClassTargets":
        """The targets of the images that the rows of a batch show."""
        rows = shown.cpu()
        mates = None if self.mates is None else self.mates[rows]
        return self._replace(labels=self.labels[rows], mates=mates)

    @staticmethod
    def with_mates(target: "ClassTargets | None", images: Images) -> "ClassTargets":
        """The targets, with images of one group as no negatives of each other. Raises `UserError`
        for images without groups."""
        if images.groups is None:
            raise UserError(
                "--exclude-group needs images in groups; these have none; say which belong "
                "together with --data.group-pattern or --data.group-column"
            )
        target = target or ClassTargets(torch.full((len(images),), -1))
        return target._replace(mates=images.groups)


def class_targets(
    config: ClassDirectionsConfig,
    images: Images,
    d: int,
    seed: int,
    objective: Objective | Literal["own"] = "nt-xent",
) -> ClassTargets | None:
    """The targets for these images; None if neither class directions nor the objective ask for
    any. Raises `UserError` for images without labels and for more classes than `d`."""
    if objective in LABELLED and images.labels is not None:
        return ClassTargets(images.labels.cpu())
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


def for_images(
    objective: Objective | Literal["own"], head: HeadConfig, images: Images
) -> HeadConfig:
    """The head for this objective and these images: for cross-entropy, `z` has as many dimensions
    as there are classes where the config leaves its size open. Raises `UserError` for an objective
    that needs labels and images without any."""
    if objective not in LABELLED:
        return head
    if images.labels is None:
        raise UserError(
            f"--objective {objective} needs labelled training images; these have none; "
            "choose another objective"
        )
    sized = head.name in ("identity", "own") or head.output_size is not None
    if objective != "cross-entropy" or sized:
        return head
    return replace(head, output_size=len(images.classes))


def check_size(objective: Objective | Literal["own"], d: int, images: Images) -> None:
    """Raise `UserError` where `z` has another number of dimensions, `d`, than the objective
    needs."""
    if objective == "cross-entropy" and d != len(images.classes):
        raise UserError(
            "z must have a dimension for each class with --objective cross-entropy; got "
            f"{d} for {len(images.classes)} classes; give a head with "
            f"head.output_size {len(images.classes)}, or leave its size out"
        )


def contrastive(
    objective: Objective | Literal["own"],
    z0: Float[Tensor, "n d"],
    z1: Float[Tensor, "n d"],
    temperature: float,
    *,
    method: Method = "auto",
    normalised: bool = True,
    negatives: Negatives = "all",
    margin: float = 0.5,
    target: ClassTargets | None = None,
    groups: int = 1,
    forms: int = 1,
    own: OwnCode | None = None,
) -> NtXent:
    """The loss and the contrastive accuracy of two views. `target`: of the images, for an objective
    that needs labels, and for nt-xent, whose negatives may leave out mates. `groups` and `forms` as
    in `over_parts`: a row's candidates are those of its own part. `own`: the function of the
    objective of that name."""

    def of_part(z0: Tensor, z1: Tensor, labels: Any = None, mates: Any = None) -> NtXent:
        if objective == "nt-xent":
            return nt_xent_and_accuracy(
                z0, z1, temperature, method, normalised=normalised, mates=mates
            )
        accuracy = _accuracy(z0, z1, normalised=normalised)  # its matrix goes before the loss's
        match objective:
            case "nt-logistic":
                loss = nt_logistic(z0, z1, temperature, negatives, normalised=normalised)
            case "margin":
                loss = margin_triplet(z0, z1, margin, negatives)
            case "dcl":
                loss = dcl(z0, z1, temperature, normalised=normalised)
            case "supcon":
                loss = supcon(z0, z1, labels, temperature, normalised=normalised)
            case "cross-entropy":
                loss = class_cross_entropy(z0, z1, labels)
            case "affinity":
                loss = affinity_loss(z0, z1)
            case "own":
                loss = cast(OwnCode, own).called("objective", z0, z1)
        return NtXent(loss, accuracy)

    return NtXent(*over_parts(of_part, z0, z1, target, groups=groups, forms=forms))


@torch.no_grad()
def _accuracy(z0: Tensor, z1: Tensor, *, normalised: bool) -> Tensor:
    return contrastive_accuracy(*contrastive_logits(z0, z1, 1.0, normalised=normalised))


def over_parts(
    measured: Callable[..., tuple[Tensor, ...]],
    z0: Float[Tensor, "n d"],
    z1: Float[Tensor, "n d"],
    target: ClassTargets | None = None,
    *,
    groups: int = 1,
    forms: int = 1,
) -> list[Tensor]:
    """The numbers that are measured on the two views, and on the labels and the mates of their
    images where there is a target, as the mean over the parts of a batch. With several `groups` the
    images fall into so many parts, one after the other, and a part counts by its images. With
    several `forms` a row of `z` holds so many vectors side by side."""
    known = [
        [None] * groups if column is None else column.to(z0.device).chunk(groups)
        for column in (() if target is None else (target.labels, target.mates))
    ]
    found = []
    for a, b in zip(z0.chunk(forms, 1), z1.chunk(forms, 1), strict=True):
        for part in zip(a.chunk(groups), b.chunk(groups), *known, strict=True):
            share = len(part[0]) / (len(z0) * forms)
            found.append([share * number for number in measured(*part)])
    return [torch.stack(column).sum(0) for column in zip(*found, strict=True)]


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
    assert target.directions is not None, "the targets of class directions"
    labels = target.labels.repeat(len(z) // len(target.labels)).to(z.device)
    return target.weight * direction_regression(z, labels, target.directions.to(z))
