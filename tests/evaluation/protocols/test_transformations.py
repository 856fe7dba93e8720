"""Transformations that an encoder built by hand can or cannot see."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from narrow import present
from PIL import Image
from planted_run import in_memory, keeping, planted_run
from torch import nn

from headwise.data import DataConfig, open_images
from headwise.errors import UserError
from headwise.evaluation.protocols.altered import altered_features, at_most
from headwise.evaluation.protocols.transformations import (
    PAPER,
    TASKS,
    TransformationsConfig,
    transformations,
)
from headwise.features.extract import extract
from headwise.heads import Head

SIDE = 16


def gradients(n: int, seed: int):
    """Smooth coloured images, bright at the bottom: upright, clean and coloured to the eye."""
    draw = torch.Generator().manual_seed(seed)
    colour = 0.3 + 0.7 * torch.rand(n, 3, 1, 1, generator=draw)
    colour[:, 0] = colour[:, 1] / 2
    ramp = torch.linspace(0.4, 1, SIDE)[:, None].expand(SIDE, SIDE)
    return in_memory(colour * ramp)


class Eye(nn.Module):
    """Six numbers that tell what was done, and six that depend on the pixels as a hash does."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(7)
        self.register_buffer("weights", 1e4 * torch.rand(3 * SIDE**2, 6, generator=draw))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grey, half = x.mean(1), SIDE // 2
        level = grey.mean((1, 2))
        down = grey[:, half:].mean((1, 2)) - grey[:, :half].mean((1, 2))
        right = grey[..., half:].mean((1, 2)) - grey[..., :half].mean((1, 2))
        chroma = (x[:, 0] - x[:, 1]).abs().mean((1, 2))
        grain = (x[..., 1:] - x[..., :-1])[..., 1:].diff().abs().mean((1, 2, 3))
        seen = torch.stack([level, down / level, right / level, chroma / level, grain], 1)
        # In double precision, so that a row of another batch has the same hash on any processor.
        hashed = torch.sin(x.flatten(1).double() @ self.weights.double()).float()
        return torch.cat([seen, seen[:, :1], hashed], 1)


class ViewEye(nn.Module):
    """Mean saturation, brightness and hue (in sixths of a turn) of images that are red."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        high, low = x.amax(1), x.amin(1)
        hue = (x[:, 1] - x[:, 2]) / (high - low).clamp(min=1e-6)
        features = (1 - low / high.clamp(min=1e-6), high, hue)
        return torch.stack([feature.mean((1, 2)) for feature in features], 1)


def measured(trained, seed=0, **settings: Any):
    default: dict[str, Any] = {"width": 32, "untrained": False}
    config = TransformationsConfig(**(default | settings))
    return {value.key: value for value in transformations(trained, config, seed=seed)}


@pytest.fixture
def hasty(monkeypatch):
    """For tests in which it does not matter how well is read."""
    monkeypatch.setattr("headwise.evaluation.probes.mlp._PATIENCE", 5)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    head = keeping(12, *range(6, 12))
    trained = planted_run(
        tmp_path_factory.mktemp("run"), gradients(400, 0), gradients(200, 1), Eye(), head, SIDE
    )
    return measured(trained)


@pytest.mark.parametrize("task", TASKS)
def test_what_h_shows_reads_1_and_what_the_head_removed_reads_chance(found, task):
    h, z = found[f"transformation_{task}/h"], found[f"transformation_{task}/z"]
    assert h.value > 0.95
    chance = z.chance
    assert abs(z.value - chance) < 0.12  # 3.4 standard errors at 1/2
    assert chance == PAPER[task]["chance"]
    assert h.n == z.n == len(present(h.each)) == 200
    seen = task == "grey"  # the only one of SimCLR's policy
    assert h.settings == z.settings == {"size": 12, "pca": False, "in_pretraining": seen}
    assert h.chance == chance


def test_parameters_of_views_are_read_where_they_are_planted(tmp_path, hasty):
    """Saturation rises to the right, and neither brightness nor hue changes it: it tells where the
    crop lies. Brightness and hue are those of all images, so they tell what was done."""
    saturation = torch.linspace(0.2, 0.8, SIDE).expand(SIDE, SIDE)
    red = 0.7 * torch.stack([torch.ones_like(saturation), 1 - saturation, 1 - saturation])
    train, test = (in_memory(red.expand(n, 3, SIDE, SIDE)) for n in (300, 200))
    trained = planted_run(tmp_path, train, test, ViewEye(), keeping(3, 0), SIDE)
    found = measured(trained)
    h, z = (
        {
            name: found[f"transformation_{name}/{tap}"]
            for name in ("crop_x", "crop_y", "brightness", "hue", "blur")
        }
        for tap in "hz"
    )
    assert min(h[name].value for name in ("crop_x", "brightness", "hue")) > 0.95
    assert z["crop_x"].value > 0.95
    assert max(z[name].value for name in ("crop_y", "brightness", "hue", "blur")) < 0.1
    assert max(h[name].value for name in ("crop_y", "blur")) < 0.1
    for value in (*h.values(), *z.values()):
        low, high = present(value.interval)
        assert low <= value.value <= high


def test_the_larger_tap_is_reduced_to_the_smaller_and_says_so(tmp_path, hasty):
    three = nn.Linear(12, 3, bias=False)
    trained = planted_run(tmp_path, gradients(60, 0), gradients(30, 1), Eye(), Head([three]), SIDE)
    found = measured(trained, untrained=True)
    assert {name.split("/")[1] for name in found} == {"h", "z", "untrained"}
    reduced = {name.split("/")[1]: value.settings["pca"] for name, value in found.items()}
    assert reduced == {"h": True, "z": False, "untrained": True}
    assert {value.settings["size"] for value in found.values()} == {3}


def test_a_value_says_whether_pretraining_had_the_transformation(tmp_path, hasty):
    """The paper's form: each of the four was among the operators of pretraining."""
    trained = planted_run(tmp_path, gradients(40, 0), gradients(20, 1), Eye(), keeping(12, 0), SIDE)
    ops = ("crop", "rotation", "grey")
    augment = replace(trained.config.augment, ops=ops, ops_second=("sobel",), grey=0.0)
    found = measured(
        replace(trained, config=replace(trained.config, augment=augment)), untrained=True
    )
    said = {
        value.variant: value.settings["in_pretraining"]
        for value in found.values()
        if value.where in ("h", "z")
    }
    assert said == {
        "grey": False,  # its probability is 0
        "rotation": True,
        "noise": False,
        "sobel": True,  # of the second views
        "crop_x": True,
        "crop_y": True,
        "crop_area": True,
        "brightness": False,
        "hue": False,
        "blur": False,
    }
    untrained = [value for value in found.values() if value.where == "untrained"]
    assert untrained
    assert not any("in_pretraining" in value.settings for value in untrained)


def test_the_seed_decides_what_is_drawn_and_nothing_in_the_model_changes(tmp_path, hasty):
    trained = planted_run(
        tmp_path, gradients(40, 0), gradients(20, 1), Eye(), keeping(12, 0, 6), SIDE
    )
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    first, again, other = (measured(trained, seed=seed) for seed in (0, 0, 1))
    assert all(first[name].value == again[name].value for name in first)
    assert any(first[name].value != other[name].value for name in first)
    after = trained.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_without_test_images_some_training_images_are_held_out(tmp_path, hasty):
    trained = planted_run(tmp_path, gradients(50, 0), None, Eye(), keeping(12, 0), SIDE)
    assert measured(trained)["transformation_grey/h"].n == 10


def test_too_few_images(tmp_path):
    trained = planted_run(tmp_path, gradients(19, 0), gradients(9, 1), Eye(), keeping(12, 0), SIDE)
    with pytest.raises(UserError, match="at least 20 training images and 5 test images; got 19"):
        measured(trained)


def test_features_that_are_not_finite(tmp_path):
    class Diverged(Eye):
        def forward(self, x):
            return super().forward(x).log()

    trained = planted_run(
        tmp_path, gradients(40, 0), gradients(20, 1), Diverged(), keeping(12, 0), SIDE
    )
    with pytest.raises(UserError, match="changed images' h features must be finite; got NaN"):
        measured(trained)


@pytest.mark.parametrize("bad", [{"train": 19}, {"test": 4}, {"width": 0}, {"noise": 0.0}], ids=str)
def test_settings_that_cannot_be(bad):
    with pytest.raises(UserError, match=f"transformations.{next(iter(bad))} must be"):
        TransformationsConfig(**bad)


def test_a_change_knows_which_images_it_is_given(tmp_path):
    images = gradients(150, 0)
    trained = planted_run(tmp_path, images, None, ViewEye(), Head([]), SIDE)

    def number(batch: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        return (where / 1000)[:, None, None, None].expand_as(batch)

    h = altered_features(trained.model, images, ("h",), number, trained.extraction)["h"]
    assert h.index.tolist() == list(range(150))
    torch.testing.assert_close(h.vectors[:, 1], torch.arange(150) / 1000)


def test_no_change_gives_the_features_of_the_images(tmp_path):
    images = gradients(90, 0)
    trained = planted_run(tmp_path, images, None, Eye(), keeping(12, 1, 7), SIDE)
    model, extraction = trained.model, trained.extraction
    same = altered_features(model, images, ("h", "z"), lambda batch, _: batch, extraction)
    plain = extract(model.encoder, model.head, images, ("h", "z"), extraction)
    for tap in ("h", "z"):
        torch.testing.assert_close(same[tap].vectors, plain[tap].vectors)


def test_files_that_cannot_be_read_are_left_out(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(6):
        level = np.full((20 + i, 24, 3), 40 * i, np.uint8)
        Image.fromarray(level).save(folder / f"{i}.png")
    damaged = folder / "2.png"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    images = open_images(DataConfig(spec=str(folder), max_bad_fraction=0.2)).train
    trained = planted_run(tmp_path, images, None, ViewEye(), Head([]), SIDE)
    h = altered_features(trained.model, images, ("h",), lambda x, _: x / 2, trained.extraction)["h"]
    assert h.index.tolist() == [0, 1, 3, 4, 5]
    torch.testing.assert_close(h.vectors[:, 1], 20 * h.index / 255)


def test_a_part_of_the_images_is_always_the_same_and_in_order():
    images = gradients(50, 0)
    part = at_most(images, 20)
    assert list(part.ids) == list(at_most(images, 20).ids)
    assert list(map(int, part.ids)) == sorted(map(int, part.ids))
    assert len(set(part.ids)) == 20
    assert at_most(images, 50) is images
