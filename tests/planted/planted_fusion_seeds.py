"""Attention of a head over training seeds, planted: what its logits are is known."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from headwise.fusion.affinity import count_classmates, masses
from headwise.fusion.similarity import rows_as_sharp, similarity
from headwise.heads.layers import Layout

Run = dict[str, np.ndarray]
"""The arrays of one seed."""
IMAGES, WIDTH, BATCHES, ATTENTION_HEADS = 16, 12, 6, 2
EVEN = torch.arange(IMAGES) % 4
UNEVEN = (torch.arange(IMAGES) >= 12).long()
"""Classes of 12 and 4 images."""


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """All runs of one planted head: `s` is a batch at a seed, seeds first."""

    seeds: int
    labels: Tensor
    cosines: Float[Tensor, "s t t"]
    """Of h. The images of a batch are the same at every seed; h differs."""
    own: Tensor
    """Which rows are views of one image."""
    normal: Callable[..., Tensor]
    """Draws of the standard normal distribution."""

    def by_row(self) -> Float[Tensor, "s t 1"]:
        return self.normal(len(self.cosines), self.cosines.shape[1], 1)


Form = Callable[[Seeds], Float[Tensor, "s t t"]]
"""The logits of one attention head."""


def without_self_and_twin(seeds: Seeds) -> Tensor:
    return (8 * seeds.cosines).masked_fill(seeds.own, -1e9)


def mixed_sharpness(seeds: Seeds) -> Tensor:
    """Another sharpness in every attention head and seed."""
    beta = (1 + 2 * seeds.normal(seeds.seeds, 1, 1).abs()).repeat_interleave(BATCHES, 0)
    return 2 * beta * seeds.cosines


def sharpness_of_each_row(seeds: Seeds) -> Tensor:
    return 4 * seeds.by_row().exp() * seeds.cosines + (4 * seeds.by_row() - 6) * seeds.own


def noise(seeds: Seeds) -> Tensor:
    """As sharp as similarity is, in directions that say nothing."""
    return 2 * seeds.normal(*seeds.cosines.shape)


def blurred(seeds: Seeds) -> Tensor:
    """The cosine of h, and noise."""
    return 6 * seeds.cosines + seeds.normal(*seeds.cosines.shape)


FORMS = (without_self_and_twin, mixed_sharpness, sharpness_of_each_row, noise, blurred)


def planted_seeds(
    seed: int,
    form: Form,
    *,
    seeds: int,
    labels: Tensor = EVEN,
    boosts: tuple[float, ...] = (0.0,),
    spread: float = 0.0,
) -> list[Run]:
    """The arrays of fusion.npz, of each seed, that a claim over seeds needs.

    `boosts`: by how much the logits of classmates are raised, by block. `spread`: the standard
    deviation of that over seeds; over images, which are the same at every seed, it is as large.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    # The same classes in every draw: a claim is about other images of these.
    centres = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(99))
    image = normal(1, BATCHES, IMAGES, WIDTH) + 0.6 * centres[labels]
    h = (image + 0.5 * normal(seeds, BATCHES, IMAGES, WIDTH)).repeat(1, 1, 2, 1)
    h = (h + 0.3 * normal(*h.shape)).flatten(0, 1)
    unit = F.normalize(h, dim=-1)
    number = torch.arange(2 * IMAGES) % IMAGES
    own = number[:, None] == number
    planted = Seeds(seeds=seeds, labels=labels, cosines=unit @ unit.mT, own=own, normal=normal)
    similar = similarity(h.flatten(0, 1), Layout(len(h), None), IMAGES)
    same = ((labels.repeat(2)[:, None] == labels.repeat(2)) & ~own).float()
    of_image = normal(1, BATCHES, IMAGES, 1).repeat(seeds, 1, 2, 1).flatten(0, 1)
    gains = []
    for boost in boosts:
        of_seed = normal(seeds, 1, 1).repeat_interleave(BATCHES, 0)
        raised = boost + spread * (of_seed + of_image)
        heads = [(form(planted) + raised * same).softmax(-1) for _ in range(ATTENTION_HEADS)]
        controls = [rows_as_sharp(similar, weights) for weights in heads]
        gains.append([_layer_gain(of, labels) for of in (heads, controls)])
    trained, control = (
        torch.stack(one, -1).reshape(seeds, BATCHES, -1).numpy() for one in zip(*gains, strict=True)
    )
    return [
        {
            "block_taps": np.array([f"g{2 + i}" for i in range(len(boosts))]),
            "layer_gain": trained[s],
            "layer_gain_h": control[s],
            "layer_gain_input": control[s],
            "layer_gain_untrained": np.ones_like(trained[s]),
            "other_mass": np.full((*trained[s].shape, 1), 0.9),
        }
        for s in range(seeds)
    ]


def some(runs: list[Run], seeds: int) -> list[list[Run]]:
    """Runs in groups of so many seeds."""
    return [runs[i : i + seeds] for i in range(0, len(runs) - seeds + 1, seeds)]


def excess(runs: list[Run]) -> Float[np.ndarray, "S B L"]:
    """The excess over h by seed, batch and block."""
    return np.stack([arrays["layer_gain"] - arrays["layer_gain_h"] for arrays in runs])


def moved(runs: list[Run], by: Float[np.ndarray, " L"]) -> list[Run]:
    """The same runs with so much more gain at each block."""
    return [{**arrays, "layer_gain": arrays["layer_gain"] + by} for arrays in runs]


def _layer_gain(heads: list[Float[Tensor, "s t t"]], labels: Tensor) -> Float[Tensor, " s"]:
    """The gain of the mean over attention heads, at every seed and batch."""
    mean = torch.stack(heads).mean(0).unflatten(1, (2, IMAGES)).unflatten(3, (2, IMAGES))
    affinity = mean.sum(3).mean(1)
    affinity.diagonal(0, 1, 2).zero_()
    classes = count_classmates(labels[None], ~torch.eye(IMAGES, dtype=torch.bool))
    return masses(affinity, classes).gain[:, 0]
