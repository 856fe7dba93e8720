"""Fine-tuning from every tap, on planted cases."""

import pytest
import torch
from training_run import coloured, make_run, same, weights

from headwise.data import Splits
from headwise.errors import UserError
from headwise.evaluation.protocols.finetune import FinetuneConfig, default_taps, finetune
from headwise.heads import HeadConfig, build_head

SHORT = FinetuneConfig(epochs=6, scratch_epochs=8, batch_size=16, lrs=(1.0,))


def values(trained, config=SHORT, seed=0):
    return {value.key: value for value in finetune(trained, config, seed=seed)}


def test_labels_that_can_be_seen_are_learned_from_every_tap(tmp_path):
    trained = make_run(tmp_path)
    before = weights(trained)
    found = values(trained)
    assert set(found) == {
        f"finetune{metric}/{what}"
        for metric in ("", "_per_class")
        for what in ("h", "g1", "z", "scratch")
    }
    assert all(value.value > 0.95 for value in found.values())
    assert found["finetune/z"].settings == {
        "learning_rate": 1.0,
        "validation_accuracies": {},
        "epochs": 6,
        "steps": 36,
    }
    assert found["finetune/z"].chance == pytest.approx(1 / 3)
    assert found["finetune/scratch"].settings["steps"] == 48
    assert same(before, weights(trained))
    assert not trained.model.training


def test_random_labels_stay_at_chance(tmp_path):
    images = Splits(coloured(96, 0, planted=False), coloured(600, 1, planted=False))
    config = FinetuneConfig(taps=("h",), epochs=6, scratch_epochs=6, batch_size=16, lrs=(0.3,))
    found = values(make_run(tmp_path, images), config)
    for what in ("h", "scratch"):
        assert found[f"finetune/{what}"].value == pytest.approx(1 / 3, abs=0.1)


def test_the_learning_rate_is_the_one_that_validates_best(tmp_path):
    """One does nothing, one diverges."""
    config = FinetuneConfig(
        taps=("h",), epochs=6, scratch_epochs=6, batch_size=16, lrs=(1e30, 1.0, 1e-9)
    )
    found = values(make_run(tmp_path), config)
    for what in ("h", "scratch"):
        settings = found[f"finetune/{what}"].settings
        assert settings["learning_rate"] == 1.0
        assert settings["validation_accuracies"].keys() == {"1e-09", "1", "1e+30"}
        assert max(settings["validation_accuracies"].values()) > 0.9
        assert settings["validation_accuracies"]["1e+30"] == 0
        assert found[f"finetune/{what}"].value > 0.95


def test_the_test_images_choose_nothing(tmp_path):
    """The same training images with another test split: the same choice, value for value."""
    train = coloured(96, 0)
    config = FinetuneConfig(taps=("h",), epochs=1, scratch_epochs=1, batch_size=16, lrs=(0.1, 1.0))
    settings = []
    for seed in (1, 2):
        trained = make_run(tmp_path, Splits(train, coloured(90, seed)))
        settings.append({name: value.settings for name, value in values(trained, config).items()})
    assert settings[0] == settings[1]


@pytest.mark.parametrize(
    ("name", "taps"),
    [
        ("identity", ("h",)),
        ("linear", ("h", "z")),
        ("mlp", ("h", "g1", "z")),
        ("ffn", ("h", "g1", "z")),
    ],
)
def test_the_taps_are_those_of_the_head(name, taps):
    assert default_taps(build_head(HeadConfig(name=name), 16)) == taps


def test_a_head_that_attends_over_the_batch_can_be_kept(tmp_path):
    head = HeadConfig(name="transformer", width=16, num_heads=2, depth=1, output_size=8)
    trained = make_run(tmp_path, head=head)
    config = FinetuneConfig(taps=("z",), epochs=6, scratch_epochs=1, batch_size=16, lrs=(0.3,))
    assert values(trained, config)["finetune/z"].value > 0.95


def test_classes_of_one_image_cannot_choose_a_learning_rate(tmp_path):
    images = Splits(coloured(3, 0), coloured(9, 1))
    trained = make_run(tmp_path, Splits(coloured(96, 0), images.test))
    object.__setattr__(trained, "images", images)
    config = FinetuneConfig(epochs=1, scratch_epochs=1, lrs=(0.1, 1.0))
    with pytest.raises(UserError, match=r"got no class of 2 images; .* a single --finetune\.lrs"):
        values(trained, config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lrs": ()}, "at least one learning rate; got none"),
        ({"validation_fraction": 1.0}, "must lie between 0 and 1; got 1.0"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(UserError, match=message):
        FinetuneConfig(**settings)


def test_an_unknown_tap_is_named(tmp_path):
    with pytest.raises(UserError, match="got 'f2'"):
        values(make_run(tmp_path), FinetuneConfig(taps=("f2",)))
    assert torch.is_grad_enabled()
