"""Files that are cut short, under everything that reads images: within the tolerance they are left
out, or replaced by another image with its own label; beyond it, one line."""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from headwise.augment import AugmentConfig
from headwise.data import DataConfig, ImageFiles, open_images
from headwise.errors import UserError
from headwise.evaluation.config import EvaluateConfig
from headwise.evaluation.evaluate import evaluate
from headwise.evaluation.protocols.linear_sgd import LinearSgdConfig
from headwise.features.table import embed
from headwise.fusion.config import FusionConfig
from headwise.fusion.lab import measure_fusion
from headwise.heads import HeadConfig
from headwise.model.config import PretrainConfig
from headwise.model.objective import ClassDirectionsConfig
from headwise.pretraining import loop
from headwise.runs.directory import Run
from headwise.theory.studies import blocks_of, set_up

COLOURS = {"red": (200, 40, 40), "blue": (40, 40, 200)}


def photos(root: Path) -> Path:
    """Eight red and eight blue pictures in either split, of two sizes, so that they stay files."""
    for split in ("train", "test"):
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for i in range(8):
                shape = (12 + i % 2, 16, 3)
                noise = np.random.default_rng(i).integers(-40, 40, shape)
                picture = Image.fromarray((noise + colour).astype(np.uint8))
                picture.save(root / split / name / f"{i}.png")
    return root


def truncate(root: Path, count: int) -> None:
    """Cut the first files of every class: the header stays."""
    for name in COLOURS:
        for i in range(count // 2):
            path = root / name / f"{i}.png"
            path.write_bytes(path.read_bytes()[:-200])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = photos(tmp_path_factory.mktemp("photos"))
    config = PretrainConfig(
        data=DataConfig(spec=str(root)),
        augment=AugmentConfig(size=8),
        head=HeadConfig(name="transformer", depth=1, width=16, num_heads=2, output_size=8),
        epochs=1,
        batch_size=8,
        device="cpu",
        precision="float32",
        workers=0,
    )
    encoder = dataclasses.replace(config.encoder, name="resnet-small", widths=(8, 8, 16, 16))
    out = tmp_path_factory.mktemp("runs") / "run"
    return loop.pretrain(dataclasses.replace(config, encoder=encoder), out, quiet=True)


def by_evaluate(run: Path, data: DataConfig, out: Path) -> Iterator[int]:
    asked = EvaluateConfig(
        protocols=("knn", "geometry", "linear_sgd"),
        linear_sgd=LinearSgdConfig(epochs=1),
        taps=("h",),
        device="cpu",
    )
    return (result.n for result in evaluate(run, data, asked).values())


def by_embed(run: Path, data: DataConfig, out: Path) -> list[int]:
    embed(run, data, out / "h.parquet", device="cpu", workers=0, quiet=True)
    table = pq.read_table(out / "h.parquet").to_pylist()
    named = (out / "h.skipped.csv").read_text().splitlines()[1:]
    test = [row for row in table if row["split"] == "test"]
    assert len(named) == len([*Path(data.spec).rglob("*.png")]) - len(table)
    assert all(row["label"] in row["path"] for row in table)
    return [len(test)]


def by_fusion(run: Path, data: DataConfig, out: Path) -> list[int]:
    asked = FusionConfig(batches=2, permutations=1, device="cpu")
    assert measure_fusion(run, data, asked)["fusion_nn1/h"].value > 0.5
    return []


def by_theory(run: Path, data: DataConfig, out: Path) -> list[int]:
    batches = blocks_of(set_up(run, data, batches=2))
    # Of the sixteen images of the test split, or of those that can be read.
    shapes = [block.batch for blocks in batches for block in blocks]
    assert all(shape.classes == pytest.approx(2, abs=0.2) for shape in shapes)
    return []


CONSUMERS = [by_evaluate, by_embed, by_fusion, by_theory]
Consumer = Callable[[Path, DataConfig, Path], Iterator[int] | list[int]]


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_what_cannot_be_read_is_left_out_of_every_number(
    run: Run, consumer: Consumer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = photos(tmp_path / "photos")
    truncate(root / "train", 2)
    truncate(root / "test", 2)
    data = DataConfig(spec=str(root), max_bad_fraction=0.2)
    with caplog.at_level(logging.WARNING, "headwise"):
        assert set(consumer(run.path, data, tmp_path)) <= {14}
    lines = [line for line in caplog.messages if "unreadable of 16 images" in line]
    assert any("photos (test): " in line and "0.png (" in line for line in lines)
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_too_many_that_cannot_be_read_are_one_line(
    run: Run, consumer: Consumer, tmp_path: Path
) -> None:
    root = photos(tmp_path / "photos")
    truncate(root / "test", 12)
    message = r"\(test\): at most 0\.01 of the images may be unreadable; \d+ of 16 are: .*truncated"
    with pytest.raises(UserError, match=message) as caught:
        list(consumer(run.path, DataConfig(spec=str(root)), tmp_path))
    assert "\n" not in str(caught.value)


def test_class_directions_pull_to_the_class_of_the_image_that_is_seen(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = photos(tmp_path / "photos")
    truncate(root / "train", 16)
    for path in (root / "train" / "red").glob("[1357].png"):  # the next one after blue is red
        Image.new("RGB", (16, 12), COLOURS["red"]).save(path)
    config = PretrainConfig(
        data=DataConfig(spec=str(root), max_bad_fraction=0.9, resident_mib=0),
        augment=AugmentConfig(size=8, jitter=0.0, grey=0.0),
        encoder=dataclasses.replace(PretrainConfig().encoder, name="resnet-small"),
        head=HeadConfig(name="mlp", output_size=8),
        class_directions=ClassDirectionsConfig(fraction=1.0),
        epochs=1,
        batch_size=8,
        device="cpu",
        precision="float32",
        workers=0,
    )
    steps: list[Any] = []

    def watched(*arguments: object, step: Callable = loop.train_step) -> object:
        steps.append(arguments)
        return step(*arguments)

    monkeypatch.setattr(loop, "train_step", watched)
    done = loop.pretrain(config, tmp_path / "run", quiet=True)
    classes = open_images(config.data).train.classes
    assert classes == ("blue", "red")
    for _, _, views, _, target in steps:
        red, _, blue = views[:8].mean((2, 3)).T
        assert (target.labels == (red > blue).long()).all()
        assert target.labels.tolist() == [1] * 8
    assert len((done.path / "skipped.csv").read_text().splitlines()) == 1 + 12
    too_many = dataclasses.replace(config, data=DataConfig(spec=str(root), resident_mib=0))
    with pytest.raises(UserError, match=r"\(train\): at most 0\.01 of the images"):
        loop.pretrain(too_many, tmp_path / "other", quiet=True)


def test_a_part_of_a_split_has_the_tolerance_of_the_split(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    images = open_images(DataConfig(spec=str(root), max_bad_fraction=0.1)).train
    assert isinstance(images, ImageFiles)
    two = images.select(torch.tensor([0, 1]))
    two.check({images.ids[0]: "truncated"})
    with pytest.raises(UserError, match="2 of 16 are"):
        two.check(dict.fromkeys(images.ids[:2], "truncated"))
