"""Transfer: an encoder whose h is the class, one that is blind, and what fine-tuning adds."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from narrow import labels_of, present
from PIL import Image
from torch import nn
from training_run import coloured, make_run, same, weights

from headwise.errors import UserError
from headwise.evaluation.probes.multilabel import memberships
from headwise.evaluation.probes.supervised import SupervisedConfig, TapModel, train_classifier
from headwise.evaluation.protocols.targets import open_targets
from headwise.evaluation.protocols.transfer import TransferConfig, transfer
from headwise.evaluation.statistics.metrics import compare_values, score
from headwise.model.contrastive import ContrastiveModel

LINEAR = {"finetune": False}
SHORT = {"steps": 40, "batch_size": 32, "lrs": (1.0,)}


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr("headwise.evaluation.statistics.tests.RESAMPLES", 50)


class Brightness(nn.Module):
    """h: the mean of every channel, which is the class of coloured images."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((2, 3))


class Blind(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(pixels), 4)


@pytest.fixture
def trained(tmp_path):
    return make_run(tmp_path)


def seeing(trained, encoder):
    model = ContrastiveModel(encoder, trained.model.head).eval()
    return dataclasses.replace(trained, model=model)


def saved(path, train, test, names=None) -> str:
    """Images and labels as an .npz; `names`: of the labels."""
    arrays = {}
    for split, images in ("train", train), ("test", test):
        labels = images.labels.numpy()
        arrays[f"x_{split}"] = images.pixels.permute(0, 2, 3, 1).numpy()
        arrays[f"y_{split}"] = labels if names is None else np.array(names)[labels]
    np.savez(path, **arrays)
    return str(path)


@pytest.fixture
def colours(tmp_path) -> str:
    return saved(tmp_path / "colours.npz", coloured(60, 5), coloured(90, 6))


@pytest.fixture
def mixtures(tmp_path) -> str:
    """Each image shows some of three things, each in its channel."""
    splits = []
    for n, seed in (120, 0), (60, 1):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(n) % 8
        members = torch.tensor([[i >> c & 1 for c in range(3)] for i in range(8)])[labels]
        pixels = torch.randint(0, 60, (n, 3, 8, 8), generator=generator)
        pixels += 120 * members[:, :, None, None]
        images = coloured(n, seed, classes=8)
        splits.append(dataclasses.replace(images, pixels=pixels.byte(), labels=labels))
    names = ["+".join(c for j, c in enumerate("rgb") if i >> j & 1) for i in range(8)]
    train, test = splits
    return saved(tmp_path / "mixtures.npz", train, test, names)


def measured(trained, *targets, seed=0, **settings):
    config = TransferConfig(targets=targets, **settings)
    trained = dataclasses.replace(trained, targets=open_targets(config.targets, limit=config.limit))
    return {value.key: value for value in transfer(trained, config, seed=seed)}


@pytest.mark.parametrize("metric", ["top1", "per_class"])
def test_an_h_that_is_the_class_reads_one_and_a_blind_one_chance(trained, colours, metric):
    text = f"colours:{metric}={colours}"
    found = measured(seeing(trained, Brightness()), text, **LINEAR)
    assert list(found) == ["transfer_linear/colours", "transfer_untrained/colours"]
    value = found["transfer_linear/colours"]
    assert value.value == 1.0
    assert value.n == 90
    assert value.settings["metric"] == metric
    assert value.chance == pytest.approx(1 / 3)
    assert value.settings["train_images"] == 60
    blind = measured(seeing(trained, Blind()), text, **LINEAR)["transfer_linear/colours"]
    assert blind.value == pytest.approx(1 / 3)
    if metric == "top1":
        assert present(value.each).tolist() == [1.0] * 90
    else:
        assert value.interval == (1.0, 1.0)
        test = compare_values(metric, value.arrays, blind.arrays, seed=0)
        assert test.difference > 0
        assert test.p_value < 0.05


def test_several_classes_an_image_are_read(trained, mixtures):
    found = measured(seeing(trained, Brightness()), f"mix:map11={mixtures}", **LINEAR)
    value = found["transfer_linear/mix"]
    assert value.value == 1.0
    assert value.arrays["scores"].shape == value.arrays["truth"].shape == (60, 3)
    assert value.arrays["truth"].any(0).all()
    assert score("map11", *map(torch.from_numpy, value.arrays.values())) == 1.0
    assert value.chance == pytest.approx(value.arrays["truth"].mean())


def test_labels_that_are_noise_stay_at_chance(trained, tmp_path):
    splits = coloured(200, 0, planted=False), coloured(300, 1, planted=False)
    text = f"noise={saved(tmp_path / 'noise.npz', *splits)}"
    found = measured(trained, text, **LINEAR)
    assert found["transfer_linear/noise"].value == pytest.approx(1 / 3, abs=0.1)


def test_fine_tuning_learns_what_h_does_not_hold_and_leaves_the_subject_alone(trained, colours):
    before = weights(trained)
    settings = {**SHORT, "lrs": (1.0, 1e9), "weight_decays": (0.0, 1e-4)}
    found = measured(trained, f"colours={colours}", **settings)
    value = found["transfer_finetune/colours"]
    assert value.value > 0.95
    assert value.settings["learning_rate"] == 1.0  # the other diverges
    assert len(value.settings["validation_scores"]) == 4
    assert value.settings["steps"] == 40
    assert same(before, weights(trained))


def test_fine_tuning_on_several_classes_an_image(trained, mixtures):
    found = measured(trained, f"mix:map11={mixtures}", **SHORT)
    value = found["transfer_finetune/mix"]
    assert value.value > 0.95
    assert value.value > present(value.chance) + 0.3
    assert value.settings["validation_scores"] == []


def test_the_loss_of_several_classes_is_the_sum_of_their_own(trained):
    images = coloured(30, 0)
    _, sets = memberships(("a+b", "b", "c+d"))
    model = TapModel(trained.model, "h", 4, 8)
    short = SupervisedConfig(epochs=1, batch_size=10, lr=0.1)
    losses = train_classifier(model, images, short, trained.extraction, seed=0, sets=sets)
    assert losses[0].item() == pytest.approx(4 * math.log(2))  # the classifier starts at zero
    assert losses[-1] < losses[0]


def test_a_weight_decay_is_divided_by_the_learning_rate(trained, colours):
    settings = {**SHORT, "steps": 1, "lrs": (0.5,), "weight_decays": (1e-3,)}
    found = measured(trained, f"colours={colours}", **settings)
    assert found["transfer_finetune/colours"].settings["weight_decay"] == pytest.approx(2e-3)


def test_files_of_any_size_are_read(trained, tmp_path):
    for split, seed in ("train", 0), ("test", 1):
        images = coloured(24, seed)
        for i, label in enumerate(labels_of(images)):
            folder = tmp_path / "files" / split / str(int(label))
            folder.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(images.pixels[i].permute(1, 2, 0).numpy())
            picture.resize((20 + i % 2, 17)).save(folder / f"{i}.png")
    text = f"files={tmp_path}/files"
    found = measured(seeing(trained, Brightness()), text, **LINEAR)
    assert found["transfer_linear/files"].value == 1.0


def test_the_seed_says_all(trained, colours):
    settings = {**SHORT, "steps": 3}
    first = measured(trained, f"colours={colours}", seed=3, **settings)
    torch.rand(1)  # the global generator has no say
    again = measured(trained, f"colours={colours}", seed=3, **settings)
    for name, value in first.items():
        assert torch.equal(present(value.each), present(again[name].each))
        assert value.settings == again[name].settings


def test_two_targets_are_measured_and_a_missing_one_stops_before_any(trained, colours):
    both = [f"one={colours}", f"two={colours}"]
    found = measured(seeing(trained, Brightness()), *both, **LINEAR)
    assert [name for name in found if "linear" in name] == [
        "transfer_linear/one",
        "transfer_linear/two",
    ]
    with pytest.raises(UserError, match=r"--transfer.targets gone=nowhere: .* must be a path"):
        open_targets((*both, "gone=nowhere"))


def error_of(trained, *targets, **settings) -> str:
    with pytest.raises(UserError) as caught:
        measured(trained, *targets, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_targets_are_said_in_a_line_with_their_name(trained, colours, tmp_path):
    assert "each once; got none" in error_of(trained)
    assert "each once; got one one" in error_of(trained, f"one={colours}", f"one={colours}")
    train, test = coloured(30, 0), coloured(30, 1)
    labels = labels_of(train)
    labels[labels == 2] = 0
    labels[0] = 2
    text = f"rare={saved(tmp_path / 'rare.npz', train, test)}"
    assert error_of(trained, text).startswith("transfer to rare: the linear probe needs at least 2")
    nan = seeing(trained, Brightness())
    nan.model.encoder.forward = lambda pixels: pixels.mean((2, 3)) * math.nan
    assert "features must be finite" in error_of(nan, f"colours={colours}")
    assert "features must be finite" in error_of(nan, f"colours:map11={colours}")
    assert "diverged" in error_of(trained, f"colours={colours}", **{**SHORT, "lrs": (1e30,)})


def test_settings_are_checked():
    settings: dict[str, Any]
    for settings in ({"lrs": ()}, {"lrs": (0.0,)}, {"weight_decays": (-1.0,)}):
        with pytest.raises(UserError, match=r"--transfer.lrs"):
            TransferConfig(**settings)
    with pytest.raises(UserError, match=r"--transfer.validation-fraction"):
        TransferConfig(validation_fraction=0.0)
