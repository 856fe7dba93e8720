"""Calibration of the controls by similarity: attention that is the cosine of `h` in any form is no
fusion, attention that prefers the class beyond it is, and noise is not."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import nn

from headwise.fusion.affinity import (
    between_images,
    count_classmates,
    independent,
    masses,
    visible_rows,
)
from headwise.fusion.attention import layer_gains, measure_attention
from headwise.fusion.measuring import highest_draw, with_p_values
from headwise.fusion.similarity import as_sharp, similarity
from headwise.fusion.verdict import judge
from headwise.heads import Context, Head, HeadConfig, build_head
from headwise.heads.layers import Layout, batch_layout

IMAGES, CLASSES, WIDTH, BATCHES = 48, 4, 24, 6
HIDDEN = -1e9
Logits = Callable[["Batch"], torch.Tensor]


def normal(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class Batch:
    """Views of images whose `h` says the class a little."""

    def __init__(self, seed: int, labels: torch.Tensor | None = None) -> None:
        self.seed = seed
        self.labels = torch.arange(IMAGES) % CLASSES if labels is None else labels
        image = (
            normal(IMAGES, WIDTH, seed=seed) + 0.6 * normal(CLASSES, WIDTH, seed=99)[self.labels]
        )
        self.h = image.repeat(2, 1) + 0.3 * normal(2 * IMAGES, WIDTH, seed=seed + 1000)
        unit = nn.functional.normalize(self.h, dim=1)
        self.cosines = unit @ unit.T
        number = torch.arange(2 * IMAGES) % IMAGES
        self.own = number[:, None] == number
        y = self.labels.repeat(2)
        self.same = ((y[:, None] == y) & ~self.own).double()


class Planted(Head):
    """A head of one block with this attention, whose input is `h`."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__([], "joint")
        self.weights = weights

    @property
    def block_taps(self) -> tuple[str, ...]:
        return self.tap_names

    def attention(self, h: torch.Tensor, views: int | None = 2) -> Iterator[torch.Tensor]:
        yield self.weights.softmax(-1)[None]


def without_self_and_twin(batch: Batch) -> torch.Tensor:
    return (8 * batch.cosines).masked_fill(batch.own, HIDDEN)[None]


def mixed_sharpness(batch: Batch) -> torch.Tensor:
    """16 attention heads from soft to sharp; self and twin as similar as they are."""
    return 2 ** torch.linspace(-2, 5, 16).double()[:, None, None] * batch.cosines


def sharpness_of_each_row(batch: Batch) -> torch.Tensor:
    """4 attention heads; in each row another β, and another share on self and twin."""
    beta, own = 4 * normal(2, 4, 2 * IMAGES, 1, seed=batch.seed).exp()
    return beta * batch.cosines + (own - 6) * batch.own


def boosted(by: float) -> Logits:
    return lambda batch: mixed_sharpness(batch) + by * batch.same


def noise(batch: Batch) -> torch.Tensor:
    """As sharp as similarity is, in directions that say nothing."""
    logits = normal(4, 2 * IMAGES, 2 * IMAGES, seed=batch.seed + 5)
    return logits.masked_fill(batch.own, HIDDEN)


def judged(logits: Logits, batches: int = BATCHES) -> tuple[float, bool]:
    """The mean excess over the control by `h`, and whether fusion is shown."""
    found = []
    for seed in range(batches):
        batch = Batch(seed)
        head = Planted(logits(batch))
        (block,) = measure_attention(head, batch.h, batch.labels, permutations=99, seed=seed)
        np.testing.assert_allclose(block.layer_gain_input, block.layer_gain_h)
        np.testing.assert_allclose(layer_gains(head, batch.h, batch.labels), [block.layer_gain])
        found.append({name: np.asarray(value)[None] for name, value in block._asdict().items()})
    arrays = with_p_values({name: np.stack([f[name] for f in found]) for name in found[0]})
    arrays["layer_gain_untrained"] = np.ones_like(arrays["layer_gain"])
    verdict = judge(arrays | {"block_taps": np.array(["z"])})
    return verdict.blocks[0].differences["h"].mean, verdict.fuses


@pytest.mark.parametrize(
    "form",
    [without_self_and_twin, mixed_sharpness, sharpness_of_each_row],
    ids=lambda f: f.__name__,
)
def test_attention_that_is_the_cosine_of_h_has_the_gain_of_its_control(form: Logits):
    excess, shown = judged(form)
    assert abs(excess) < 1e-6
    assert not shown


@pytest.mark.parametrize(("by", "least"), [(0.2, 0.05), (0.4, 0.1)])
def test_a_true_preference_for_the_class_exceeds_the_control(by: float, least: float):
    excess, shown = judged(boosted(by))
    assert excess > least
    assert shown


def test_noise_is_below_the_control():
    excess, shown = judged(noise)
    assert excess < -0.1
    assert not shown


def test_a_verdict_needs_six_batches_and_a_noteworthy_excess():
    assert not judged(boosted(0.4), BATCHES - 1)[1]
    excess, shown = judged(boosted(0.02))
    assert 0 < excess < 0.02
    assert not shown


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("context", ["joint", "per-view", "halves", "twin-masked"])
def test_each_row_keeps_its_share_and_entropy(context: Context, dtype: torch.dtype):
    batch = Batch(0)
    h, layout = batch.h.to(dtype), batch_layout(context, 2 * IMAGES, 2, batch.h.device)
    shape = (layout.sequences, 3, *2 * [2 * IMAGES // layout.sequences])
    logits = 2 * normal(*shape, seed=7).to(dtype)
    logits[:, 1] *= 30  # as sharp as one row
    logits[:, 2] *= 1e-3
    seen = visible_rows(layout, 2 * IMAGES)
    weights = logits.masked_fill(~seen, -torch.inf).softmax(-1)
    similar = similarity(h, layout, IMAGES)
    control = as_sharp(similar, weights, IMAGES)
    own = between_images(weights, IMAGES).sum(-1)
    torch.testing.assert_close(control.sum(-1), own, rtol=0, atol=1e-5)
    expected = by_bisection(h, layout, weights, sharpest=similar.betas[-1].item())
    torch.testing.assert_close(
        control, expected, rtol=0, atol=1e-4 if dtype == torch.float64 else 2e-3
    )


def by_bisection(
    h: torch.Tensor, layout: Layout, weights: torch.Tensor, *, sharpest: float
) -> torch.Tensor:
    """The control from its definition, by a slow and sure way."""
    sequences, _, length, _ = weights.shape
    unit = nn.functional.normalize(h, dim=1).double().reshape(sequences, 1, length, -1)
    cosines = unit @ unit.mT
    image = torch.arange(len(h)).reshape(sequences, 1, length) % IMAGES
    hidden = ~visible_rows(layout, len(h)) | (image[..., None] == image[..., None, :])
    kept = weights.double().masked_fill(hidden, 0)
    mass = kept.sum(-1, keepdim=True)
    target = torch.special.entr(kept / mass).sum(-1, keepdim=True)
    low, high = torch.zeros_like(target), torch.full_like(target, sharpest)
    for _ in range(100):
        beta = (low + high) / 2
        p = (beta * cosines).masked_fill(hidden, -torch.inf).softmax(-1)
        softer = torch.special.entr(p).sum(-1, keepdim=True) > target
        low, high = torch.where(softer, beta, low), torch.where(softer, high, beta)
    return between_images(mass * p, IMAGES).to(weights.dtype)


def test_the_input_of_a_block_is_the_tap_before_it():
    """Rows that the first block has changed have another control than `h`."""
    config = HeadConfig(name="transformer", depth=2, width=12, num_heads=3, output_size=4)
    head = build_head(config, WIDTH, 0).double().eval().requires_grad_(False)
    batch = Batch(0)
    blocks = list(measure_attention(head, batch.h, batch.labels, permutations=0, seed=0))
    layout = batch_layout("joint", 2 * IMAGES, 2, batch.h.device)
    classes = count_classmates(batch.labels[None], ~torch.eye(IMAGES, dtype=torch.bool))
    taps = head.taps(batch.h, views=2)
    for block, weights, tap in zip(
        blocks, head.attention(batch.h, views=2), ("g1", "g2"), strict=True
    ):
        for rows, found in ((batch.h, block.layer_gain_h), (taps[tap], block.layer_gain_input)):
            control = as_sharp(similarity(rows, layout, IMAGES), weights, IMAGES)
            expected = masses(control.mean(0, keepdim=True), classes).gain.item()
            assert found == pytest.approx(expected, rel=1e-9)
        assert abs(block.layer_gain_input - block.layer_gain_h) > 1e-3


# Chance


def test_images_that_all_attend_to_make_no_gain():
    """Classes of unequal size, and attention that depends on the attended image alone."""
    labels = (torch.arange(IMAGES) >= 36).long()
    popular = torch.where(labels == 0, 6.0, 1.0).double() + normal(IMAGES, seed=3).abs()
    visible = ~torch.eye(IMAGES, dtype=torch.bool)
    affinity = popular.expand(IMAGES, IMAGES) * visible
    affinity = (affinity / affinity.sum(1, keepdim=True))[None]
    classes = count_classmates(labels[None], visible)
    assert masses(affinity, classes).gain.item() == pytest.approx(1, abs=1e-9)
    even = classes.classmates[0] / (IMAGES - 1)
    same = (affinity[0] * (labels[:, None] == labels)).sum(1)
    assert (same.sum() / even.sum()).item() > 1.1, "an even spread would call it a gain"
    torch.testing.assert_close(independent(affinity, visible), affinity, rtol=1e-9, atol=0)


def test_independent_attention_has_the_sums_of_the_attention():
    affinity = normal(3, 10, 10, seed=0).exp()
    visible = ~torch.eye(10, dtype=torch.bool)
    affinity = affinity * visible
    found = independent(affinity, visible)
    for axis in (1, 2):
        torch.testing.assert_close(found.sum(axis), affinity.sum(axis), rtol=1e-9, atol=0)
    assert (found.diagonal(0, 1, 2) == 0).all()
    # The odds between any two rows are the same in all columns that both see.
    ratio = found[0, 0, 2:] / found[0, 1, 2:]
    torch.testing.assert_close(ratio, ratio[:1].expand(8))


def test_the_untrained_head_of_highest_gain_is_the_control():
    gains = np.array([[[1.1, 1.0], [1.2, 0.9]], [[1.1, 1.4], [1.4, 1.1]]])  # [B U L]
    np.testing.assert_array_equal(highest_draw(gains), [[1.2, 1.0], [1.4, 1.4]])
    assert np.isnan(highest_draw(np.full((2, 3, 1), np.nan))).all()
