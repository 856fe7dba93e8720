"""Search and duplicates on files with planted copies."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from resolved import resolved_augment

from headwise.cli.main import main
from headwise.data import DataConfig
from headwise.encoders.build import EncoderConfig, build_encoder, resolve
from headwise.features.table import embed
from headwise.model.export import save_encoder

SIDE = 32


def blobs(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    smooth = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(4))
    low, high = int(np.asarray(smooth).min()), int(np.asarray(smooth).max())
    return Image.eval(smooth, lambda value: int((value - low) * 255 / (high - low)))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Forty images in two classes and two splits, with equal pixels across the splits (PNG beside
    BMP) and near copies (a JPEG, a crop); a new encoder, and its table."""
    root = tmp_path_factory.mktemp("copies")
    for i in range(40):
        path = root / "photos" / ("train" if i < 30 else "test") / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        blobs(i).save(path)
    blobs(4).save(root / "photos/test/class0/equal.bmp")
    blobs(6).save(root / "photos/train/class1/equal.bmp")
    blobs(8).save(root / "photos/test/class0/near.jpg", quality=60)
    blobs(10).crop((1, 1, 31, 31)).save(root / "photos/train/class0/cut.png")
    config = resolve(EncoderConfig(name="resnet-small", widths=(8, 8, 16, 16)), 16)
    views = resolved_augment(size=16, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    file = root / "run" / "encoder.safetensors"
    save_encoder(build_encoder(config, 16, 0), config, views, file)
    embed(file, DataConfig(spec=str(root / "photos")), root / "t.parquet", workers=0, quiet=True)
    return root


def answer(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_search_finds_the_copy_first(place, tmp_path, capsys):
    out = tmp_path / "found.csv"
    query = "train/class0/4.png"
    assert answer("search", place / "t.parquet", "--query", query, "-k", 5, "--out", out) == 0
    found = rows(out)
    assert len(found) == 5
    assert found[0]["path"] == "test/class0/equal.bmp"
    assert float(found[0]["similarity"]) == pytest.approx(1, abs=1e-5)
    assert query not in {row["path"] for row in found}
    assert found[0]["path"] in capsys.readouterr().out
    with Image.open(out.with_suffix(".png")) as sheet:
        assert sheet.width > 5 * 128


def test_an_image_outside_the_table_is_encoded_by_the_run(place, tmp_path):
    blobs(8).save(tmp_path / "mine.png")
    words = ("--query", tmp_path / "mine.png", "--run", place / "run", "--out")
    assert answer("search", place / "t.parquet", *words, tmp_path / "a.csv") == 0
    assert rows(tmp_path / "a.csv")[0]["path"] == "train/class0/8.png"
    assert answer("search", place / "t.parquet", *words[:2]) == 2


@pytest.mark.parametrize("what", ["t.parquet", "photos"])
def test_planted_copies_are_found_across_splits_first(place, tmp_path, capsys, what):
    out = tmp_path / "copies.csv"
    words = ("--threshold", 0.9999, "--run", place / "run", "--out", out, "--quiet")
    assert answer("duplicates", place / what, *words) == 0
    found = rows(out)
    groups = [{r["path"] for r in found if r["group"] == row["group"]} for row in found]
    equal = next(group for group in groups if "test/class0/equal.bmp" in group)
    assert equal == {"test/class0/equal.bmp", "train/class0/4.png"}
    assert {r["kind"] for r in found if r["path"] in equal} == {"exact"}
    assert found[0]["across"] == "True"
    assert [row["across"] for row in found] == sorted((r["across"] for r in found), reverse=True)
    assert "train/class1/equal.bmp" in {row["path"] for row in found}
    said = capsys.readouterr().out
    assert "equal pixels: compared for 44 images" in said
    assert "groups have images of several splits" in said
    assert out.with_suffix(".png").is_file()


def test_a_calibrated_threshold_finds_near_copies(place, tmp_path, capsys):
    out = tmp_path / "copies.csv"
    words = ("--run", place / "run", "--out", out, "--quiet")
    assert answer("duplicates", place / "t.parquet", *words) == 0
    found = {row["path"]: row for row in rows(out)}
    groups = {name: found[name]["group"] for name in found}
    assert groups["test/class0/near.jpg"] == groups["train/class0/8.png"]
    assert groups["train/class0/cut.png"] == groups["train/class0/10.png"]
    assert "95 % of near copies of 32 images" in capsys.readouterr().out


def test_what_was_not_done_is_said(place, tmp_path, capsys):
    np.savez(tmp_path / "t.npz", h=np.random.default_rng(0).standard_normal((9, 4)))
    assert answer("duplicates", tmp_path / "t.npz", "--quiet") == 0
    said = capsys.readouterr().out
    assert "equal pixels: not compared, there are no images" in said
    assert "at least 0.9500, the default, not calibrated, which needs --run" in said
    assert answer("duplicates", place / "photos", "--quiet") == 0
    assert "near copies: not looked for; name a run" in capsys.readouterr().out
