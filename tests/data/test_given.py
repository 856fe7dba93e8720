"""What `images=` takes from a Python program, and `Run` and `Path` in every public function."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from headwise import embed, evaluate, load_encoder, open_images, pretrain, resume
from headwise.data import DataConfig, ImageFiles, ResidentImages, Splits, given_splits
from headwise.errors import UserError
from headwise.evaluation.config import EvaluateConfig
from headwise.model.config import PretrainConfig

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
LABELS = np.arange(40) % 2
LABELLED = list(zip(PIXELS, torch.from_numpy(LABELS), strict=True))
PICTURES = [Image.fromarray(pixels) for pixels in PIXELS]


class Pairs(Dataset):
    def __init__(self, items: list) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(PICTURES)


@pytest.mark.parametrize(
    "given",
    [
        PIXELS,
        torch.from_numpy(PIXELS),
        torch.from_numpy(PIXELS).permute(0, 3, 1, 2),
        PICTURES,
        (PIXELS, LABELS),
        (PICTURES, LABELS.tolist()),
        (torch.from_numpy(PIXELS), torch.from_numpy(LABELS)),
        Pairs(list(zip(PICTURES, LABELS.tolist(), strict=True))),
        Pairs([(torch.from_numpy(p).permute(2, 0, 1), y) for p, y in LABELLED]),
    ],
    ids=range(9),
)
def test_images_of_a_program(given: Any) -> None:
    train, test = given_splits(given)
    assert test is None
    assert isinstance(train, ResidentImages)
    assert torch.equal(train.pixels, torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    labelled = isinstance(given, tuple | Pairs)
    assert (train.labels is not None) == labelled
    if labelled:
        assert train.labels is not None
        assert train.labels.tolist() == LABELS.tolist()
        assert train.classes == ("0", "1")
    test = given_splits(Splits(given, given)).test
    assert isinstance(test, ResidentImages)
    assert torch.equal(test.pixels, train.pixels)
    assert test.classes == train.classes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "images must be .* got none"),
        (PIXELS[:0], "got none"),
        (5, "images must be .* got int"),
        ("photos", "images must be .* got str"),
        ({"a": 1}, "got dict"),
        ([Path("a.png")], "got list"),
        (Stream(), "got an IterableDataset"),
        (Pairs([PICTURES[0]]), "items are not pairs"),
        (Pairs([(PICTURES[0], 0), (PICTURES[1].resize((9, 8)), 1)]), "must have one size; got"),
        (PIXELS.astype(np.float32), "must be uint8 of shape .* got float32"),
        (PIXELS[0, 0], "must be uint8 of shape"),
        ((PIXELS, LABELS[:7]), "one label per image; got 7 for 40"),
        ((PIXELS, np.linspace(0, 1, 40)), "labels must be one integer or one string per image"),
        (Splits(PIXELS, 3), "got int"),  # type: ignore[arg-type]
    ],
    ids=range(14),
)
def test_anything_else_is_one_line(given: Any, message: str, unchecked: None) -> None:
    with pytest.raises(UserError, match=message) as caught:
        given_splits(given)
    assert "\n" not in str(caught.value)


def test_a_run_and_a_path_are_taken_everywhere(
    tiny: PretrainConfig, tmp_path: Path, unchecked: None
) -> None:
    config = dataclasses.replace(tiny, epochs=1, knn_every=0)
    images = Splits((PIXELS, LABELS), (PIXELS[:30], LABELS[:30]))  # type: ignore[arg-type]
    run = pretrain(config, tmp_path / "run", images, quiet=True)
    asked = EvaluateConfig(protocols=("knn",), taps=("h",), baselines=False, device="cpu")
    assert evaluate(run, config=asked, images=images)["knn/h"].n == 30
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, picture in enumerate(PICTURES):
        picture.save(folder / f"{i}.png")
    assert embed(run, folder, tmp_path / "h.parquet", device="cpu", quiet=True) == 40
    assert load_encoder(run).num_features == 16
    assert resume(run).path == run.path
    files = open_images(DataConfig(spec=folder, resident_mib=0)).train  # type: ignore[arg-type]
    assert isinstance(files, ImageFiles)
    assert given_splits(files).train is files
    for call in (
        lambda: pretrain(config, tmp_path / "none", []),
        lambda: evaluate(run, config=asked, images=[]),
        lambda: evaluate(5, config=asked),  # type: ignore[arg-type]
        lambda: evaluate(run, 5),  # type: ignore[arg-type]
        lambda: embed(run, None, tmp_path / "t.parquet"),  # type: ignore[arg-type]
        lambda: load_encoder(None),  # type: ignore[arg-type]
        lambda: open_images(5),  # type: ignore[arg-type]
    ):
        with pytest.raises(UserError, match=r"; got \w") as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "none").exists()
