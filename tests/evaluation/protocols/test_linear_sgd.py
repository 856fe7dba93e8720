"""Linear evaluation under augmentation, on planted cases."""

import dataclasses

import pytest
import torch
from narrow import present
from training_subject import coloured, make_subject, same, weights

from headwise.data import Splits
from headwise.errors import UserError
from headwise.evaluation.protocols.linear_sgd import LinearSgdConfig, linear_sgd

SHORT = LinearSgdConfig(epochs=10, batch_size=16, lr=1.0)


def values(subject, config=SHORT, seed=0):
    return {value.key: value for value in linear_sgd(subject, config, seed=seed)}


def test_a_class_that_h_holds_is_read_and_the_model_stays_as_it_was(tmp_path):
    subject = make_subject(tmp_path)
    before = weights(subject)
    found = values(subject)
    assert set(found) == {"linear_sgd/h", "linear_sgd_per_class/h"}
    assert found["linear_sgd/h"].value > 0.9
    assert found["linear_sgd/h"].n == len(present(found["linear_sgd/h"].each)) == 150
    assert found["linear_sgd/h"].settings == {"epochs": 10, "steps": 60}
    assert found["linear_sgd/h"].chance == pytest.approx(1 / 3)
    assert same(before, weights(subject))
    assert not subject.model.training
    assert all(parameter.requires_grad for parameter in subject.model.encoder.parameters())


def test_a_class_that_h_does_not_hold_is_not_read(tmp_path):
    """The images show their class, but the encoder's last layer is blind: only a network that
    was trained itself could see it."""
    subject = make_subject(tmp_path)
    with torch.no_grad():
        for name, parameter in subject.model.encoder.named_parameters():
            if name.startswith("layer4"):
                parameter.zero_()
    assert values(subject)["linear_sgd/h"].value == pytest.approx(1 / 3)


def test_random_labels_stay_at_chance(tmp_path):
    images = Splits(coloured(96, 0, planted=False), coloured(600, 1, planted=False))
    subject = make_subject(tmp_path, images)
    assert values(subject)["linear_sgd/h"].value == pytest.approx(1 / 3, abs=0.1)


def test_the_seed_says_all(tmp_path):
    images = Splits(coloured(96, 0, planted=False), coloured(150, 1, planted=False))
    subject = make_subject(tmp_path, images)
    found = [present(values(subject, seed=seed)["linear_sgd/h"].each) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_learning_rate_that_diverges_is_named(tmp_path):
    subject = make_subject(tmp_path)
    wild = dataclasses.replace(SHORT, lr=1e60)
    with pytest.raises(UserError, match="linear_sgd/h must have finite logits"):
        values(subject, wild)
