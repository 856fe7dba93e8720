"""Few labels: which ones, the file that says so, and planted cases."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from narrow import labels_of
from training_run import coloured, make_run, same, weights

from headwise.data.names import as_names
from headwise.data.split import balanced_fraction
from headwise.errors import UserError
from headwise.evaluation.probes.supervised import SupervisedConfig, TapModel, train_classifier
from headwise.evaluation.protocols import semi as module
from headwise.evaluation.protocols.semi import SemiConfig, labelled_subset, semi

SHORT = SemiConfig(fractions=(0.1, 0.5), epochs=(1, 2), min_steps=20, batch_size=16, lr=1.0)


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=80),
    fractions=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    seed=st.integers(0, 9),
)
def test_every_class_gives_equally_many_at_least_one_and_more_only_add(labels, fractions, seed):
    labels = torch.tensor(labels)
    few, many = (balanced_fraction(labels, fraction, seed) for fraction in sorted(fractions))
    assert set(few.tolist()) <= set(many.tolist())
    assert few.tolist() == sorted(set(few.tolist()))
    counts = labels.unique(return_counts=True)[1]
    each = max(1, round(min(fractions) * len(labels) / len(counts)))
    assert labels[few].unique(return_counts=True)[1].tolist() == counts.clamp(max=each).tolist()


def test_one_per_cent_of_cifars_labels_are_fifty_a_class():
    labels = torch.arange(50_000) % 10
    assert labels[balanced_fraction(labels, 0.01, seed=0)].bincount().tolist() == [50] * 10
    assert not torch.equal(balanced_fraction(labels, 0.01, 0), balanced_fraction(labels, 0.01, 1))


def test_the_file_is_the_subset(tmp_path):
    images = coloured(60, 0)
    path = tmp_path / "subsets" / "semi-20-seed0.csv"
    index = labelled_subset(images, 0.2, 0, path)
    lines = path.read_text().splitlines()
    assert lines[1] == "id,class"
    assert lines[2:] == [f"0/{i}.png,class {labels_of(images)[i]}" for i in index.tolist()]
    written = path.read_bytes()
    assert torch.equal(labelled_subset(images, 0.2, 0, path), index)
    assert path.read_bytes() == written
    # What stands in the file is used, even where something else would be drawn.
    path.write_text("\n".join([*lines[:2], "0/7.png,class 1", "0/3.png,class 0"]) + "\n")
    assert labelled_subset(images, 0.2, 0, path).tolist() == [3, 7]
    # Other images, or other labels of the same images, are another subset.
    for other in (coloured(60, 1), dataclasses.replace(images, labels=labels_of(images).flip(0))):
        labelled_subset(images, 0.2, 0, path)
        found = labelled_subset(other, 0.2, 0, path)
        assert torch.equal(found, balanced_fraction(labels_of(other), 0.2, 0))
        assert path.read_text().splitlines()[2].startswith(other.ids[int(found[0])])


def test_a_file_that_names_unknown_images_is_an_error(tmp_path):
    images, path = coloured(60, 0), tmp_path / "subset.csv"
    labelled_subset(images, 0.2, 0, path)
    whole = path.read_text()
    path.write_text(whole + "else.png,class 0\n")
    with pytest.raises(UserError, match=r"must list training images by id; got else\.png; delete"):
        labelled_subset(images, 0.2, 0, path)
    path.write_text("\n".join(whole.splitlines()[:2]))
    with pytest.raises(UserError, match="by id; got none"):
        labelled_subset(images, 0.2, 0, path)


def test_names_that_are_not_utf8_survive(tmp_path):
    ids = as_names([f"\udcff,{i}\n.png" for i in range(60)])
    images = dataclasses.replace(coloured(60, 0), ids=ids)
    path = tmp_path / "subset.csv"
    index = labelled_subset(images, 0.2, 0, path)
    assert torch.equal(labelled_subset(images, 0.2, 0, path), index)


def test_an_encoder_that_knows_the_classes_needs_few_labels(tmp_path, monkeypatch):
    trained = make_run(tmp_path)
    taught = TapModel(trained.model, "h", 3, 8)
    lesson = SupervisedConfig(epochs=10, batch_size=16, lr=1.0)
    train_classifier(taught, trained.images.train, lesson, trained.extraction, seed=9)
    trained.model.encoder.load_state_dict(taught.encoder.state_dict())
    before = weights(trained)
    seen = []

    def watched(model, images, *arguments, **settings):
        seen.append(tuple(images.ids))
        return train_classifier(model, images, *arguments, **settings)

    monkeypatch.setattr(module, "train_classifier", watched)
    gentle = SemiConfig(fractions=(0.04, 0.1), epochs=(1, 1), min_steps=12, batch_size=16, lr=0.1)
    found = {value.key: value for value in semi(trained, gentle, seed=3)}
    assert set(found) == {
        f"semi_{percent}{metric}/{what}"
        for percent in (4, 10)
        for metric in ("", "_per_class")
        for what in ("finetuned", "scratch")
    }
    assert found["semi_4/finetuned"].value > 0.95
    assert found["semi_4/scratch"].value < found["semi_4/finetuned"].value - 0.2
    assert found["semi_4/finetuned"].settings["labels"] == 3
    assert found["semi_10/finetuned"].settings["labels"] == 9
    # Both networks got the images that the file lists.
    assert seen[0] == seen[1]
    assert seen[2] == seen[3]
    rows = (tmp_path / "subsets" / "semi-10-seed3.csv").read_text().splitlines()[2:]
    assert tuple(row.split(",")[0] for row in rows) == seen[2]
    assert same(before, weights(trained))


def test_labels_that_can_be_seen_are_learned_from_half_of_them_and_from_a_tap(tmp_path):
    config = dataclasses.replace(SHORT, fractions=(0.5,), epochs=(15,), from_tap="g1")
    found = {value.key: value for value in semi(make_run(tmp_path), config, seed=0)}
    assert found["semi_50/finetuned"].value > 0.95
    assert found["semi_50/scratch"].value > 0.95
    assert found["semi_50/scratch"].settings == {
        "labels": 48,
        "steps": 45,
        "from_tap": "g1",
    }
    assert found["semi_50/scratch"].chance == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fractions": (0.1,)}, "one number for each of --semi.fractions; got 2 for 1"),
        ({"fractions": (0.0, 0.1)}, "must lie in"),
        ({"fractions": (), "epochs": ()}, "got 0 for 0"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(UserError, match=message):
        SemiConfig(**settings)
