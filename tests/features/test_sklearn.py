"""The encoder of a run as a transformer of scikit-learn."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from narrow import present
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from headwise.data import ResidentImages, open_images
from headwise.errors import UserError
from headwise.model.export import load_encoder
from headwise.model.preparation import prepare
from headwise.pretraining.loop import pretrain
from headwise.sklearn import Encoder


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    config = dataclasses.replace(tiny, epochs=1, knn_every=0)
    return pretrain(config, tmp_path_factory.mktemp("sklearn") / "run", quiet=True).path


@pytest.fixture(scope="module")
def photos(tiny, tmp_path_factory):
    """Uint8 images, their paths, and their labels."""
    folder, images = tmp_path_factory.mktemp("photos"), open_images(tiny.data).train
    assert isinstance(images, ResidentImages)
    pixels = images.pixels.permute(0, 2, 3, 1).numpy()
    paths = [folder / f"{i}.png" for i in range(len(pixels))]
    for path, one in zip(paths, pixels, strict=True):
        Image.fromarray(one).save(path)
    return pixels, paths, present(images.labels).numpy()


def test_rows_are_those_of_the_encoder_whatever_the_images_are(run, photos):
    pixels, paths, _ = photos
    encoder = load_encoder(run)
    with torch.no_grad():
        exact = encoder(prepare(paths, encoder)).numpy()
    for images in (paths, [*map(str, paths)], np.array([*map(str, paths)]), pixels):
        found = Encoder(run, batch_size=7).transform(images)
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)
    alone = Encoder(run / "encoder.safetensors").fit_transform([Image.open(paths[0])])
    np.testing.assert_allclose(alone, exact[:1], rtol=1e-5, atol=1e-6)
    assert Encoder(run, tap="z").transform(paths[:3]).shape == (3, 8)
    assert Encoder(run, tap="f1").transform(paths[:3]).shape == (3, 8)


def test_it_works_in_a_pipeline(run, photos):
    pixels, paths, labels = photos
    pipeline = make_pipeline(Encoder(run), LogisticRegression(max_iter=200))
    by_hand = cross_val_score(
        LogisticRegression(max_iter=200), Encoder(run).transform(pixels), labels, cv=3
    )
    found = cross_val_score(pipeline, np.array([*map(str, paths)]), labels, cv=3)
    assert found.tolist() == by_hand.tolist()
    again = pickle.loads(pickle.dumps(clone(pipeline)))
    assert again.fit(pixels, labels).predict(pixels[:2]).shape == (2,)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
    ],
)
def test_it_keeps_scikit_learns_rules_for_estimators_that_take_no_tables(check, run):
    check("Encoder", Encoder(run))


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (np.zeros((3, 5)), "takes paths, Pillow's images, or a uint8 array .*; got ndarray"),
        ([], "at least one image"),
        ("photos", "takes a list of images"),
        (["nowhere.png"], "nowhere.png cannot be read"),
    ],
)
def test_wrong_images_are_one_line(run, given, wrong):
    with pytest.raises(UserError, match=wrong):
        Encoder(run).transform(given)


def test_wrong_settings_are_one_line(run, photos):
    with pytest.raises(UserError, match="got 'g9'"):
        Encoder(run, tap="g9").transform(photos[1])
    with pytest.raises(UserError, match="at least 1"):
        Encoder(run, batch_size=0).transform(photos[1])
