"""The loop that trains with labels, against plain loops and closed forms."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from narrow import labels_of, pixels_of, present
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score
from torch import nn
from training_run import coloured, make_run, same, weights

from headwise.augment import AugmentConfig, resolve, view_batches
from headwise.data import DataConfig, Splits, open_images
from headwise.errors import UserError
from headwise.evaluation.probes.supervised import (
    SupervisedConfig,
    TapModel,
    accuracies,
    check_splits,
    new_weights,
    predict,
    right,
    train_classifier,
    training_labels,
)
from headwise.features.extract import Features
from headwise.heads import HeadConfig
from headwise.model.extraction import ExtractConfig

SHORT = SupervisedConfig(epochs=8, batch_size=16, lr=1.0)


def accuracy(model, images, extraction) -> float:
    return right(predict(model, images, extraction)).double().mean().item()


def test_labels_that_can_be_seen_are_learned_and_the_subject_stays_as_it_was(tmp_path):
    trained = make_run(tmp_path)
    before = weights(trained)
    model = TapModel(trained.model, "h", 3, 8)
    losses = train_classifier(model, trained.images.train, SHORT, trained.extraction, seed=0)
    assert losses[0].item() == pytest.approx(math.log(3))  # the classifier starts at zero
    assert len(losses) == 48
    assert not model.training
    assert accuracy(model, trained.images.test, trained.extraction) > 0.97
    assert same(before, weights(trained))


def test_random_labels_stay_at_chance(tmp_path):
    images = Splits(coloured(96, 0, planted=False), coloured(600, 1, planted=False))
    trained = make_run(tmp_path, images)
    model = TapModel(trained.model, "h", 3, 8)
    train_classifier(model, images.train, SHORT, trained.extraction, seed=0)
    assert accuracy(model, images.test, trained.extraction) == pytest.approx(1 / 3, abs=0.1)


def test_the_seed_says_all(tmp_path):
    trained = make_run(tmp_path)
    few = SupervisedConfig(epochs=1, batch_size=16, lr=0.1)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(found))
        model = TapModel(trained.model, "z", 3, 8)
        train_classifier(model, trained.images.train, few, trained.extraction, seed=seed)
        found.append(model.state_dict())
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_what_is_frozen_stays_bit_identical_and_the_rest_learns(tmp_path):
    trained = make_run(tmp_path)
    model = TapModel(trained.model, "h", 3, 8)
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    train_classifier(
        model, trained.images.train, SHORT, trained.extraction, seed=0, frozen=model.encoder
    )
    assert same(before, model.encoder.state_dict())
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    assert accuracy(model, trained.images.test, trained.extraction) > 0.9


class Bias(nn.Module):
    """Logits that do not look at the images; a matrix, so that it decays."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([[0.5, -0.2, 0.1]]))

    def forward(self, pixels):
        return self.logits.expand(len(pixels), 3)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_steps_are_those_of_a_plain_loop(tmp_path, schedule):
    """Every batch holds all images, so that nothing is random."""
    extraction = make_run(tmp_path).extraction
    images = coloured(16, 3, planted=False)
    config = SupervisedConfig(epochs=7, lr=9.0, weight_decay=0.01, schedule=schedule)
    model = Bias()
    train_classifier(model, images, config, extraction, seed=0)
    share = labels_of(images).bincount(minlength=3).double() / 16
    weight, buffer = torch.tensor([0.5, -0.2, 0.1]).double(), torch.zeros(3).double()
    for step in range(7):
        rate = 9.0 * 16 / 256
        if schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * step / 7))
        gradient = weight.softmax(0) - share + 0.01 * weight
        buffer = 0.9 * buffer + gradient
        weight = weight - rate * (gradient + 0.9 * buffer)
    torch.testing.assert_close(model.logits[0].double(), weight, rtol=0, atol=1e-5)


def image_folder(folder, per_class=(3, 2, 4)) -> None:
    generator = np.random.default_rng(0)
    for label, count in enumerate(per_class):
        (folder / f"class{label}").mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{i}.png")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_cannot_be_read_lends_its_label_to_no_other(tmp_path, workers):
    """The first step of a bias says which labels it saw: 1/3 less their share."""
    image_folder(tmp_path)
    config = DataConfig(
        spec=str(tmp_path), cache=False, resident_mib=0, test_fraction=0.0, max_bad_fraction=0.5
    )
    images = open_images(config, workers=1).train
    extraction = ExtractConfig(augment=resolve(AugmentConfig(size=8), images), workers=workers)
    for path in (tmp_path / "class2" / "1.png", tmp_path / "class2" / "3.png"):
        path.write_bytes(path.read_bytes()[:200])
    model = Bias()
    nn.init.zeros_(model.logits)
    train_classifier(model, images, SupervisedConfig(epochs=1, lr=256 / 9), extraction, seed=0)
    # class2/2.png and class0/0.png take their places, with their own labels.
    gradient = 1 / 3 - torch.tensor([4.0, 2.0, 3.0]) / 9
    torch.testing.assert_close(model.logits[0], -1.9 * gradient, rtol=1e-4, atol=1e-6)
    assert predict(model, images, extraction).index.tolist() == [0, 1, 2, 3, 4, 5, 7]


@pytest.mark.parametrize("resident_mib", [100, 0])
def test_one_view_is_the_first_of_two(tmp_path, resident_mib):
    image_folder(tmp_path)
    config = DataConfig(
        spec=str(tmp_path), cache=False, resident_mib=resident_mib, test_fraction=0.0
    )
    images = open_images(config, workers=1).train
    made = [
        list(
            view_batches(
                images,
                resolve(AugmentConfig(size=8), images),
                batch_size=4,
                steps=range(3),
                seed=1,
                device="cpu",
                workers=0,
                **({} if views is None else {"views": views}),
            )
        )
        for views in (None, 2, 1)
    ]
    for default, two, one in zip(*made, strict=True):
        assert torch.equal(default.pixels, two.pixels)
        torch.testing.assert_close(one.pixels, two.pixels[:4], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["identity", "linear", "mlp", "transformer"])
def test_a_network_cut_at_a_tap_is_what_the_tap_says(tmp_path, name):
    settings: dict[str, Any] = (
        {"width": 16, "num_heads": 2, "depth": 2} if name == "transformer" else {}
    )
    trained = make_run(tmp_path, head=HeadConfig(name=name, **settings))
    pixels = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        h = trained.model.encoder(pixels)
        taps = {"h": h, **trained.model.head.taps(h, views=1)}
        for tap, rows in taps.items():
            model = TapModel(trained.model, tap, 4, 8)
            assert not model(pixels).any()  # the classifier starts at zero
            nn.init.normal_(model.classifier.weight)
            expected = rows @ model.classifier.weight.T
            torch.testing.assert_close(model(pixels), expected)
    with pytest.raises(UserError, match="got 'g9'"):
        TapModel(trained.model, "g9", 4, 8)


def test_predictions_come_in_the_images_order(tmp_path):
    trained = make_run(tmp_path)
    images = present(trained.images.test)
    model = TapModel(trained.model, "z", 3, 8)
    nn.init.normal_(model.classifier.weight)
    found = predict(model, images, trained.extraction)
    mean, std = (
        torch.tensor(v)[:, None, None]
        for v in (trained.extraction.augment.mean, trained.extraction.augment.std)
    )
    with torch.no_grad():
        expected = model((pixels_of(images) / 255 - mean) / std)
    torch.testing.assert_close(found.vectors, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(present(found.labels), labels_of(images))


def test_scratch_is_the_same_network_with_other_weights(tmp_path):
    trained = make_run(tmp_path)
    first, again, other = (new_weights(trained.config, seed).state_dict() for seed in (0, 0, 1))
    assert same(first, again)
    assert {k: v.shape for k, v in first.items()} == {
        k: v.shape for k, v in weights(trained).items()
    }
    for one in (other, weights(trained)):
        assert not torch.equal(first["encoder.conv1.weight"], one["encoder.conv1.weight"])


@pytest.mark.parametrize("classes", [3, 8])
def test_the_accuracies_are_scikit_learns(classes):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (200,), generator=generator) % torch.randint(
        1, classes + 1, (200,), generator=generator
    )
    logits = torch.randn(200, classes, generator=generator)
    logits[torch.arange(200), labels] += 1
    train = coloured(90, 0, planted=False, classes=classes)
    table = Features(logits, labels, torch.arange(200))
    found = {
        value.key: value
        for value in accuracies(table, train, protocol="p", where="h", settings={"k": 1})
    }
    expected = {
        "p/h": (logits.argmax(1) == labels).double().mean().item(),
        "p_per_class/h": balanced_accuracy_score(labels, logits.argmax(1)),
    }
    if classes == 8:
        expected["p_top5/h"] = top_k_accuracy_score(labels, logits, k=5, labels=range(classes))
    assert {name: value.value for name, value in found.items()} == pytest.approx(expected)
    assert all(len(present(value.each)) == value.n == 200 for value in found.values())
    commonest = labels_of(train).bincount().argmax()
    assert found["p/h"].settings == {"k": 1}
    assert found["p/h"].chance == pytest.approx((labels == commonest).double().mean().item())
    assert found["p_per_class/h"].chance == 1 / classes


def test_training_that_diverged_is_an_error_and_never_right():
    labels = torch.zeros(4, dtype=torch.int64)
    table = Features(torch.full((4, 3), math.nan), labels, torch.arange(4))
    assert not right(table).any()
    with pytest.raises(UserError, match="finetune/z must have finite logits"):
        list(accuracies(table, coloured(9, 0), protocol="finetune", where="z", settings={}))


def test_as_many_steps_as_epochs_say_but_never_too_few():
    config = SupervisedConfig(epochs=10, batch_size=32, lr=0.1)
    assert [config.steps(n) for n in (8, 32, 48, 3200)] == [10, 10, 15, 1000]
    assert SupervisedConfig(epochs=2, batch_size=32, lr=0.1, min_steps=50).steps(48) == 50


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2; got 1"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message):
    default: dict[str, Any] = {"epochs": 1, "lr": 0.1}
    with pytest.raises(UserError, match=message):
        SupervisedConfig(**(default | settings))


def test_labels_that_cannot_work(tmp_path):
    one = coloured(30, 0)
    with pytest.raises(UserError, match="at least 2 classes"):
        training_labels(one.select(torch.arange(0, 30, 3)))
    with pytest.raises(UserError, match="needs labels; the images have none"):
        training_labels(dataclasses.replace(one, labels=None, classes=()))
    two_of_three = one.select((labels_of(one) < 2).nonzero().flatten())
    with pytest.raises(UserError, match="got class 'class 2' in the test split only"):
        check_splits(two_of_three, one)
    assert check_splits(one, two_of_three) is two_of_three
