"""Linear evaluation under augmentation, on planted cases."""

import dataclasses

import pytest
import torch
from narrow import present
from training_run import coloured, make_run, same, weights

from headwise.data import Splits
from headwise.errors import UserError
from headwise.evaluation.protocols.linear_sgd import LinearSgdConfig, linear_sgd

SHORT = LinearSgdConfig(epochs=10, batch_size=16, lr=1.0)


def values(trained, config=SHORT, seed=0):
    return {value.key: value for value in linear_sgd(trained, config, seed=seed)}


def test_a_class_that_h_holds_is_read_and_the_model_stays_as_it_was(tmp_path):
    trained = make_run(tmp_path)
    before = weights(trained)
    found = values(trained)
    assert set(found) == {"linear_sgd/h", "linear_sgd_per_class/h"}
    assert found["linear_sgd/h"].value > 0.9
    assert found["linear_sgd/h"].n == len(present(found["linear_sgd/h"].each)) == 150
    assert found["linear_sgd/h"].settings == {"epochs": 10, "steps": 60}
    assert found["linear_sgd/h"].chance == pytest.approx(1 / 3)
    assert same(before, weights(trained))
    assert not trained.model.training
    assert all(parameter.requires_grad for parameter in trained.model.encoder.parameters())


def test_a_class_that_h_does_not_hold_is_not_read(tmp_path):
    """The images show their class, but the encoder's last layer is blind: only a network that
    was trained itself could see it."""
    trained = make_run(tmp_path)
    with torch.no_grad():
        for name, parameter in trained.model.encoder.named_parameters():
            if name.startswith("layer4"):
                parameter.zero_()
    assert values(trained)["linear_sgd/h"].value == pytest.approx(1 / 3)


def test_random_labels_stay_at_chance(tmp_path):
    images = Splits(coloured(96, 0, planted=False), coloured(600, 1, planted=False))
    trained = make_run(tmp_path, images)
    assert values(trained)["linear_sgd/h"].value == pytest.approx(1 / 3, abs=0.1)


def test_the_seed_says_all(tmp_path):
    images = Splits(coloured(96, 0, planted=False), coloured(150, 1, planted=False))
    trained = make_run(tmp_path, images)
    found = [present(values(trained, seed=seed)["linear_sgd/h"].each) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_learning_rate_that_diverges_is_named(tmp_path):
    trained = make_run(tmp_path)
    wild = dataclasses.replace(SHORT, lr=1e60)
    with pytest.raises(UserError, match="linear_sgd/h must have finite logits"):
        values(trained, wild)
