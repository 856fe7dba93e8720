"""Policies: which parameters a view has, wherever and whenever it is made."""

import dataclasses
import math

import pytest
import torch
from narrow import present
from resolved import resolved_augment
from scipy.stats import binomtest

from headwise.augment import AugmentConfig, ResolvedAugment, policies, simclr, simclr_small
from headwise.augment.batches import local_batch, local_rows
from headwise.augment.crop import crop_boxes
from headwise.augment.views import ViewParameters, make_views, sample_views
from headwise.data.images import image_files, resident_images
from headwise.errors import UserError
from headwise.runtime import distributed


def pictures(n: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, 3, height, width), generator=generator).byte()


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_probabilities(probability):
    n = 20_000
    config = resolved_augment(
        strength=1.0, flip=probability, jitter=probability, grey=probability, blur=probability
    )
    drawn = sample_views(config, n // 2, seed=0, step=0)
    for mask in (drawn.flip, drawn.jitter.applied, drawn.grey, drawn.blur.applied):
        assert binomtest(int(mask.sum()), n, probability).pvalue > 1e-3


def test_every_view_of_a_batch_has_parameters_of_its_own():
    config = resolved_augment(size=16, strength=1.0, blur=1.0)
    n, drawn = 64, sample_views(config, 64, seed=0, step=0)
    varied = (drawn.crop[:, 0], drawn.jitter.factors, drawn.blur.sigma)
    assert [len(part.unique(dim=0)) for part in varied] == [2 * n] * 3
    same = pictures(1, 24, 24).expand(n, -1, -1, -1)
    views = views_of(config, same, drawn)
    assert torch.cdist(views.flatten(1), views.flatten(1)).fill_diagonal_(9).min() > 0.1


def views_of(config: ResolvedAugment, images: torch.Tensor, drawn) -> torch.Tensor:
    """Views in [0, 1]."""
    plain = dataclasses.replace(config, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    height, width = images.shape[2:]
    boxes = crop_boxes(drawn.crop, height, width, config.crop_ratio)
    return make_views(plain, images, boxes, drawn)


def leaves(drawn: ViewParameters) -> dict[str, torch.Tensor]:
    jitter = {f"jitter.{name}": value for name, value in drawn.jitter._asdict().items()}
    blur = {f"blur.{name}": value for name, value in drawn.blur._asdict().items()}
    return {"crop": drawn.crop, "flip": drawn.flip, "grey": drawn.grey, **jitter, **blur}


# SimCLR's on ImageNet.
RESOLVED = resolved_augment(strength=1.0, blur=0.5)


def differing(one: ViewParameters, other: ViewParameters) -> set[str]:
    a, b = leaves(one), leaves(other)
    return {name.split(".")[0] for name in a if not torch.equal(a[name], b[name])}


def test_parameters_are_a_function_of_seed_and_step():
    config = RESOLVED
    drawn = sample_views(config, 32, seed=1, step=7)
    torch.rand(5)  # what else was drawn does not matter
    sample_views(config, 32, seed=1, step=8)
    assert differing(drawn, sample_views(config, 32, seed=1, step=7)) == set()
    everything = {"crop", "flip", "jitter", "grey", "blur"}
    assert differing(drawn, sample_views(config, 32, seed=1, step=8)) == everything
    assert differing(drawn, sample_views(config, 32, seed=2, step=7)) == everything


@pytest.mark.parametrize(
    ("operation", "change"),
    [
        ("crop", {"crop_scale": (0.2, 1.0), "crop_ratio": (1.0, 1.0)}),
        ("flip", {"flip": 0.1}),
        ("jitter", {"jitter": 0.1, "strength": 0.3}),
        ("grey", {"grey": 0.9}),
        ("blur", {"blur": 0.1, "blur_sigma": (0.5, 0.6)}),
    ],
)
def test_changing_one_operation_leaves_the_draws_of_the_others(operation, change):
    config = RESOLVED
    changed = dataclasses.replace(config, **change)
    drawn = sample_views(config, 32, seed=0, step=0), sample_views(changed, 32, seed=0, step=0)
    assert differing(*drawn) == {operation}


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_ranks_parameters_together_are_those_of_one_process(world, monkeypatch):
    config = RESOLVED
    index, drawn = local_batch(config, 40, 16, step=3, seed=5)
    monkeypatch.setattr(distributed, "world_size", lambda: world)
    parts = []
    for rank in range(world):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(local_batch(config, 40, 16, step=3, seed=5))
        assert len(range(16)[local_rows(16)]) == 16 // world
    assert torch.equal(torch.cat([part for part, _ in parts]), index)
    whole = leaves(drawn)
    for name, value in whole.items():
        views = [leaves(part)[name].chunk(2) for _, part in parts]
        together = torch.cat([torch.cat(twins) for twins in zip(*views, strict=True)])
        assert torch.equal(together, value), name


def test_views_lie_in_0_1_and_no_operation_mixes_rows():
    config = resolved_augment(size=20, strength=1.0, blur=0.5)
    images, drawn = pictures(12, 30, 24), sample_views(config, 12, seed=0, step=0)
    views = views_of(config, images, drawn)
    assert views.shape == (24, 3, 20, 20)
    assert 0 <= views.min() < views.max() <= 1 + 1e-6
    for i in range(12):
        mine = drawn.rows(torch.tensor([i, i + 12]))
        alone = views_of(config, images[i : i + 1], mine)
        torch.testing.assert_close(alone, views[[i, i + 12]], rtol=0, atol=2e-5)


def test_policies_are_simclrs():
    image_net, cifar = simclr(), simclr_small()
    for config in (image_net, cifar):
        assert (config.crop_scale, config.crop_ratio) == ((0.08, 1.0), (3 / 4, 4 / 3))
        assert (config.flip, config.jitter, config.grey) == (0.5, 0.8, 0.2)
        assert (config.colour, config.blur_sigma) == ((0.8, 0.8, 0.8, 0.2), (0.1, 2.0))
    assert (image_net.strength, image_net.blur) == (1.0, 0.5)
    assert (cifar.strength, cifar.blur) == (0.5, 0.0)
    drawn = sample_views(
        resolved_augment(strength=cifar.strength, blur=cifar.blur), 2000, seed=0, step=0
    )
    low, high = drawn.jitter.factors.min(0).values, drawn.jitter.factors.max(0).values
    torch.testing.assert_close(low, torch.tensor([0.6, 0.6, 0.6, -0.1]), rtol=0, atol=5e-3)
    torch.testing.assert_close(high, torch.tensor([1.4, 1.4, 1.4, 0.1]), rtol=0, atol=5e-3)


def resident(pixels: torch.Tensor):
    return resident_images(pixels, None, (), [str(i) for i in range(len(pixels))])


@pytest.mark.parametrize(
    ("height", "width", "given", "size", "strength", "blur"),
    [
        (32, 32, None, 32, 0.5, 0.0),
        (64, 64, None, 64, 0.5, 0.0),
        (65, 65, None, 65, 1.0, 0.5),
        (80, 48, None, 48, 0.5, 0.0),
        (96, 96, 32, 32, 0.5, 0.0),
        (32, 32, 96, 96, 1.0, 0.5),
    ],
)
def test_resolve_chooses_by_the_views_size(height, width, given, size, strength, blur):
    images = resident(pictures(2, height, width))
    resolved = policies.resolve(AugmentConfig(size=given), images)
    assert (resolved.size, resolved.strength, resolved.blur) == (size, strength, blur)
    assert policies.resolve(resolved, images) == resolved


def test_resolve_keeps_what_was_given():
    config = AugmentConfig(
        ops=("crop", "noise", "flip"),
        ops_second=("crop",),
        size=24,
        strength=0.7,
        blur=0.3,
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
    )
    assert vars(policies.resolve(config, resident(pictures(2, 9, 9)))) == vars(config)
    off = AugmentConfig(strength=0.0, blur=0.0, mean=(0.0, 0.0, 0.0))
    resolved = policies.resolve(off, resident(pictures(2, 96, 96)))
    assert (resolved.strength, resolved.blur, resolved.mean) == (0.0, 0.0, (0.0, 0.0, 0.0))


def test_resolve_measures_the_channels():
    pixels = pictures(7, 13, 11)
    pixels[:, 2] = 51
    resolved = policies.resolve(AugmentConfig(), resident(pixels))
    mean, std = present(resolved.mean), present(resolved.std)
    plain = pixels.double() / 255
    assert mean == pytest.approx(plain.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert std[:2] == pytest.approx(plain.std((0, 2, 3), correction=0).tolist()[:2], abs=1e-6)
    assert (mean[2], std[2]) == (0.2, 1.0)  # a flat channel is not divided by 0


def test_resolve_for_files_is_imagenets():
    files = image_files(_Nowhere(), ["a", "b"], None, ())
    resolved = policies.resolve(AugmentConfig(), files)
    assert (resolved.size, resolved.strength, resolved.blur) == (224, 1.0, 0.5)
    assert (resolved.mean, resolved.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert policies.resolve(AugmentConfig(size=64), files).strength == 0.5


class _Nowhere:
    content = stamp = ""

    def open(self, id: str):
        raise OSError(id)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flip": 1.5}, r"augment\.flip must be a probability in \[0, 1\]; got 1\.5"),
        ({"blur": -0.1}, r"augment\.blur must be a probability"),
        ({"grey": math.nan}, r"augment\.grey must be a probability"),
        ({"crop_scale": (0.0, 1.0)}, r"augment\.crop_scale must be two positive numbers"),
        ({"crop_scale": (0.5, 0.2)}, r"augment\.crop_scale .* lower first; got 0\.5 0\.2"),
        ({"crop_scale": (0.5, 1.2)}, r"augment\.crop_scale must be at most 1; got 1\.2"),
        ({"crop_ratio": (2.0, 1.0)}, r"augment\.crop_ratio must be two positive numbers"),
        ({"blur_sigma": (0.0, 1.0)}, r"augment\.blur_sigma must be two positive numbers"),
        ({"strength": 3.0}, r"half a turn; got 3\.0 × 0\.2"),
        ({"strength": -1.0}, r"augment\.strength must not be negative; got -1\.0"),
        ({"std": (0.1, 0.0, 0.1)}, r"augment\.std must be positive; got"),
        ({"size": 4}, r"augment\.size must be at least 8 px; got 4"),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        AugmentConfig(**values)
