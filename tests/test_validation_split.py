"""Settings are chosen on validation images, which are held out of the training images."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from headwise import EvaluateConfig, embed, open_images, pretrain
from headwise.augment import AugmentConfig
from headwise.data import DataConfig, Images
from headwise.encoders.build import EncoderConfig
from headwise.errors import UserError
from headwise.evaluation.evaluate import measure
from headwise.features.given import read_features
from headwise.heads import HeadConfig
from headwise.model.config import PretrainConfig

QUICK = EvaluateConfig(protocols=("knn",), taps=("h",), baselines=False, device="cpu")


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for i in range(120):
        save(root / ("red", "blue")[i % 2] / f"{i:03}.png", i)
    return root


def opened(folder: Path, **settings: Any) -> DataConfig:
    plain = DataConfig(spec=str(folder), validation_fraction=0.25, cache=False)
    return dataclasses.replace(plain, **settings)


def names(images: Images | None) -> set[str]:
    assert images is not None
    return set(images.ids)


def test_validation_images_come_from_the_training_images_alone(folder: Path) -> None:
    plain = open_images(opened(folder, validation_fraction=0.0))
    train, test = open_images(opened(folder))
    fitted, validation = open_images(opened(folder, test_on="validation"))
    assert names(test) == names(plain.test)  # the test images stay what they were
    assert names(fitted) == names(train)
    assert names(validation) == names(plain.train) - names(train)
    assert 0.15 < len(names(validation)) / len(plain.train) < 0.35
    assert validation is not None
    assert validation.labels is not None
    assert set(validation.labels.tolist()) == {0, 1}
    other = open_images(opened(folder, test_on="validation", split_seed=1))
    assert names(other.test) != names(validation)


def test_an_image_more_moves_no_validation_image(folder: Path, tmp_path: Path) -> None:
    validation = names(open_images(opened(folder, test_on="validation")).test)
    for path in folder.rglob("*.png"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).write_bytes(path.read_bytes())
    save(tmp_path / "red" / "another.png", 999)
    grown = names(open_images(opened(tmp_path, test_on="validation")).test)
    assert grown - {"red/another.png"} == validation


def test_the_validation_draw_is_independent_of_the_test_draw(folder: Path) -> None:
    """The test split takes the lowest draws of a hash; the same hash would leave none below."""
    for fraction in (0.1, 0.2):
        data = opened(folder, validation_fraction=fraction, test_on="validation")
        assert len(names(open_images(data).test)) > 4


def test_a_run_is_judged_on_validation_images_first_and_on_test_images_apart(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = PretrainConfig(
        data=opened(folder),
        augment=AugmentConfig(size=8),
        encoder=EncoderConfig(name="resnet-small", stem="small-strided", widths=(8, 8, 8, 8)),
        head=HeadConfig(name="mlp", output_size=8),
        epochs=1,
        batch_size=10,
        device="cpu",
        precision="float32",
        knn_every=0,
    )
    run = pretrain(config, tmp_path / "run", quiet=True)
    with caplog.at_level(logging.WARNING, logger="headwise"):
        chosen = measure(run, opened(folder, test_on="validation"), QUICK)
        last = measure(run, None, QUICK)
        rows = embed(run, folder, tmp_path / "all.parquet", quiet=True)
    assert "pretraining" not in caplog.text  # none of them was seen, and none is called new
    assert rows == 120
    table = pq.read_table(tmp_path / "all.parquet").to_pydict()
    by_split: dict[str, set[str]] = {kind: set() for kind in ("train", "validation", "test")}
    for path, split in zip(table["path"], table["split"], strict=True):
        by_split[split].add(path)
    train, test = open_images(opened(folder))
    assert (by_split["train"], by_split["test"]) == (names(train), names(test))
    given = read_features(tmp_path / "all.parquet")
    assert len(given.labels) == len(train) + len(names(test))
    assert "validation images" in chosen.data.words
    assert "test images" in last.data.words
    assert len(run.sections) == 2
    validation = open_images(opened(folder, test_on="validation")).test
    assert chosen.results["knn/h"].n == len(names(validation))
    save(folder / "red" / "more.png", 1234)
    try:
        with pytest.raises(UserError, match="1 added"):
            measure(run, None, QUICK)
    finally:
        (folder / "red" / "more.png").unlink()


def test_wrong_settings_are_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must be in \[0, 1\); got 1"):
        opened(folder, validation_fraction=1.0)
    with pytest.raises(UserError, match="needs validation images"):
        opened(folder, validation_fraction=0.0, test_on="validation")
    save(tmp_path / "1.png", 1)
    save(tmp_path / "2.png", 2)
    with pytest.raises(UserError, match="must be 0 for images without labels"):
        open_images(opened(tmp_path))
