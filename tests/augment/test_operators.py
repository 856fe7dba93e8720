"""Policies of any operators for each of the two views."""

import dataclasses
from typing import Any

import pytest
import torch
from resolved import resolved_augment

from headwise.augment import (
    SIMCLR,
    AugmentConfig,
    Operator,
    ResolvedAugment,
    ops,
    policies,
    study_ops,
    view_batches,
)
from headwise.augment.batches import local_batch
from headwise.augment.crop import apply_crop, crop_boxes
from headwise.augment.views import (
    ViewParameters,
    finish_views,
    made_in_c,
    make_views,
    sample_views,
)
from headwise.augment.views_in_c import library
from headwise.config import from_dict, to_dict
from headwise.data.images import resident_images
from headwise.errors import UserError
from headwise.runtime import distributed

STUDIED: tuple[Operator, ...] = ("cutout", "rotation", "noise", "sobel")
ALL: tuple[Operator, ...] = (*SIMCLR, *STUDIED)


def policy(*first: Operator, second: tuple[Operator, ...] | None = None, **settings: Any):
    return resolved_augment(ops=first, ops_second=second, size=16, blur=0.5, **settings)


def pictures(n: int, height: int = 24, width: int = 20) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, 3, height, width), generator=generator).byte()


def views_of(config: ResolvedAugment, n: int = 12) -> tuple[torch.Tensor, ViewParameters]:
    """Views of so many pictures, and how they were drawn."""
    images, drawn = pictures(n), sample_views(config, n, seed=3, step=5)
    boxes = crop_boxes(drawn.crop, 24, 20, config.crop_ratio)
    return make_views(config, images, boxes, drawn), drawn


def parts(drawn: ViewParameters) -> dict[str, torch.Tensor]:
    flat = {}
    for name, part in drawn._asdict().items():
        inner = {"": part} if isinstance(part, torch.Tensor) else part._asdict()
        flat |= {f"{name}.{key}": value for key, value in inner.items()}
    return flat


def test_simclrs_operators_by_name_are_the_default():
    default, named = resolved_augment(size=16, blur=0.5), policy(*SIMCLR)
    assert default == named
    resolved = policies.resolve(AugmentConfig(), resident_images(pictures(2), None, (), ["a", "b"]))
    assert (resolved.ops, resolved.ops_second, resolved.blur) == (SIMCLR, None, 0.0)


@pytest.mark.parametrize("op", STUDIED)
def test_an_operator_leaves_the_draws_of_the_others(op):
    before, after = (
        parts(sample_views(policy(*some), 32, seed=0, step=0)) for some in (SIMCLR, (*SIMCLR, op))
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    own = {"rotation": "turns.", "sobel": "sobel."}.get(op, f"{op}.applied")
    assert changed == {own}


def test_leaving_an_operator_out_leaves_the_draws_of_the_others():
    before = parts(sample_views(policy(*SIMCLR), 32, seed=0, step=0))
    for op, masks in {
        "crop": "crop.",
        "flip": "flip.",
        "colour": "jitter.applied",
        "grey": "grey.",
        "blur": "blur.applied",
    }.items():
        rest = tuple(other for other in SIMCLR if other != op)
        after = parts(sample_views(policy(*rest), 32, seed=0, step=0))
        assert {name for name in before if not torch.equal(before[name], after[name])} == {masks}


def test_operators_are_applied_in_the_order_given():
    order: tuple[Operator, ...] = ("crop", "sobel", "blur", "rotation", "cutout", "noise", "colour")
    views, drawn = views_of(policy(*order))
    boxes = crop_boxes(drawn.crop, 24, 20, (3 / 4, 4 / 3))
    expected = study_ops.apply_sobel(apply_crop(pictures(12), boxes, 16), drawn.sobel)
    expected = study_ops.apply_rotation(ops.apply_blur(expected, drawn.blur), drawn.turns)
    expected = study_ops.apply_cutout(expected, drawn.cutout)
    expected = study_ops.apply_grain(expected, drawn.noise, 0.1)
    expected = ops.apply_jitter(expected, drawn.jitter)
    torch.testing.assert_close(views, expected, rtol=0, atol=1e-6)
    assert 0 <= views.min() < views.max() <= 1
    swapped, _ = views_of(policy("crop", "blur", "sobel", *order[3:]))
    assert (swapped - views).abs().max() > 0.1
    assert {"turns", "sobel", "noise", "cutout"} <= {
        name.partition(".")[0] for name, values in parts(drawn).items() if values.any()
    }


def test_an_operator_on_one_branch_changes_its_views_alone():
    crops, _ = views_of(policy("crop"))
    views, drawn = views_of(policy("crop", second=("crop", "rotation")))
    first, second = views.chunk(2)
    torch.testing.assert_close(first, crops[:12], rtol=0, atol=3e-5)  # these are made in C
    turned = study_ops.apply_rotation(crops[12:], drawn.turns[12:])
    torch.testing.assert_close(second, turned, rtol=0, atol=3e-5)
    assert drawn.turns[:12].eq(0).all()
    assert set(drawn.turns[12:].tolist()) == {0, 1, 2, 3}


def test_each_branch_has_its_own_order():
    views, drawn = views_of(policy("crop", "blur", "sobel", second=("crop", "sobel", "blur")))
    for branch, order in ((slice(12), "blur sobel"), (slice(12, 24), "sobel blur")):
        alone, other = views_of(policy("crop", *order.split()))  # type: ignore[arg-type]
        torch.testing.assert_close(views[branch], alone[branch], rtol=0, atol=1e-6)
        assert torch.equal(drawn.sobel, other.sobel)


def test_views_without_a_crop_are_the_largest_box_that_crop_ratio_allows():
    config = policy("flip", second=("crop",), flip=0.0, crop_ratio=(1.0, 1.0))
    views, drawn = views_of(config)
    assert crop_boxes(drawn.crop, 24, 20, (1.0, 1.0))[:12].tolist() == [[2, 0, 20, 20]] * 12
    boxes = torch.tensor([2, 0, 20, 20]).expand(12, 4)
    torch.testing.assert_close(views[:12], apply_crop(pictures(12), boxes, 16), rtol=0, atol=3e-5)
    torch.testing.assert_close(views[12:], views_of(policy("crop", crop_ratio=(1.0, 1.0)))[0][12:])


@pytest.mark.skipif(library() is None, reason="the C code is not compiled here")
@pytest.mark.parametrize(
    ("branches", "in_c"),
    [
        ((SIMCLR, None), True),
        ((("flip", "blur"), ("crop", "grey")), True),
        ((("crop", "grey", "colour"), None), False),
        ((SIMCLR, ("crop", "rotation")), False),
        ((("crop", "noise"), SIMCLR), False),
    ],
    ids=str,
)
def test_c_makes_the_views_of_simclrs_operators_in_its_order(branches, in_c, monkeypatch):
    config = policy(*branches[0], second=branches[1])
    assert (made_in_c(config, "cpu"), made_in_c(config, "cuda")) == (in_c, False)
    assert not made_in_c(dataclasses.replace(config, in_c=False), "cpu")
    views, drawn = views_of(config)
    images = pictures(12).double() / 255
    boxes = crop_boxes(drawn.crop, 24, 20, config.crop_ratio)
    crops = apply_crop(images, boxes, 16).float()
    each = [finish_views(config, crops[part], drawn.rows(part)) for part in HALVES]
    torch.testing.assert_close(views, torch.cat(each), rtol=0, atol=3e-5)


HALVES = (slice(12), slice(12, 24))


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_make_the_views_of_one_process(world, monkeypatch):
    config = policy(*ALL, second=("crop", "noise", "cutout"))
    images = resident_images(pictures(16), None, (), [str(i) for i in range(16)])
    settings: dict[str, Any] = {"batch_size": 8, "steps": range(1, 2), "seed": 5, "workers": 0}
    whole = next(iter(view_batches(images, config, device="cpu", **settings))).pixels
    _, drawn = local_batch(config, 16, 8, step=1, seed=5)
    monkeypatch.setattr(distributed, "world_size", lambda: world)
    views = []
    for rank in range(world):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        views.append(next(iter(view_batches(images, config, device="cpu", **settings))).pixels)
    together = torch.cat(
        [torch.cat(twins) for twins in zip(*(v.chunk(2) for v in views), strict=True)]
    )
    torch.testing.assert_close(together, whole, rtol=0, atol=1e-6)
    assert drawn.noise.applied.any()


def test_noise_is_that_of_each_views_seed_however_views_pass_together(monkeypatch):
    config = policy("crop", "noise", second=("noise",), noise=1.0, noise_sigma=0.05)
    views, _ = views_of(config)
    monkeypatch.setattr("headwise.augment.views._CHUNK_VALUES", 3 * 16**2 * 5)
    torch.testing.assert_close(views_of(config)[0], views, rtol=0, atol=1e-6)
    clean, _ = views_of(policy("crop", second=()))
    inside = (clean > 0.4) & (clean < 0.6)
    assert (views - clean)[inside].std() == pytest.approx(0.05, abs=0.005)


def test_branches_of_equal_operators_are_one_policy():
    images = resident_images(pictures(2), None, (), ["a", "b"])
    config = AugmentConfig(ops=("crop", "blur"), ops_second=("crop", "blur"))
    resolved = policies.resolve(config, images)
    assert (resolved.ops_second, resolved.blur) == (None, 0.5)  # blur is named: it is applied
    assert policies.resolve(AugmentConfig(blur=0.2, ops=("blur",)), images).blur == 0.2
    assert policies.resolve(resolved, images) == resolved


def test_a_run_from_before_operators_had_simclrs():
    values = to_dict(policy(*SIMCLR))
    for name in ("ops", "ops_second", "cutout", "cutout_side", "noise", "noise_sigma", "sobel"):
        del values[name]
    assert from_dict(ResolvedAugment, values) == policy(*SIMCLR)
    study = policy("crop", second=("crop", "sobel"))
    assert from_dict(ResolvedAugment, to_dict(study)) == study


def test_an_operator_that_changes_no_view_is_not_in_use():
    config = policy(*SIMCLR, second=("crop", "noise"), grey=0.0)
    used = {op for op in ALL if config.uses(op)}
    assert used == {"crop", "flip", "colour", "blur", "noise"}
    assert not dataclasses.replace(config, strength=0.0).uses("colour")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ops": ("crop", "rotaton")}, r"cannot be 'rotaton': did you mean 'rotation'"),
        ({"ops": ("crop", "grey", "grey")}, r"each operator once; got crop grey grey"),
        ({"ops_second": ("grey", "crop")}, r"ops_second must have crop first, .* got grey crop"),
        ({"cutout": 2.0}, r"augment\.cutout must be a probability"),
        ({"noise_sigma": 0.0}, r"augment\.noise_sigma must be positive; got 0\.0"),
        ({"cutout_side": -1.0}, r"augment\.cutout_side must be positive; got -1\.0"),
    ],
    ids=str,
)
def test_operators_that_cannot_work_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        from_dict(AugmentConfig, values)
