import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from resolved import resolved_augment
from timm.data import create_transform, resolve_model_data_config

from headwise.data import DataConfig
from headwise.encoders.build import EncoderConfig, build_encoder, resolve
from headwise.errors import UserError
from headwise.features import table as embedding
from headwise.features.table import embed
from headwise.model.export import load_encoder, save_encoder

SIZE = 16
FAST: dict[str, Any] = {"device": "cpu", "precision": "float32", "workers": 0, "quiet": True}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path_factory.mktemp("cache")))


def make_run(path: Path, seed: int = 0) -> Path:
    config = resolve(EncoderConfig(name="resnet-small", widths=(8, 8, 16, 16)), SIZE)
    encoder = build_encoder(config, SIZE, seed)
    views = resolved_augment(size=SIZE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    save_encoder(encoder, config, views, path / "encoder.safetensors")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "photos")


def write_images(root: Path, names: list[str], side: int | None = None) -> Path:
    """Noise squares of different sides, or of one."""
    for seed, name in enumerate(names):
        generator = np.random.default_rng(seed)
        height = side or int(generator.integers(12, 40))
        pixels = generator.integers(0, 256, (height, height, 3), np.uint8)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name)
    return root


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def by_timm(run: Path, root: Path, paths: list[str]) -> torch.Tensor:
    """h by timm's own preparation of images, one at a time."""
    encoder = load_encoder(run)
    settings: dict[str, Any] = resolve_model_data_config(encoder)
    prepare: Any = create_transform(**settings)  # timm's type also has the parts of a transform
    with torch.no_grad():
        rows = [encoder(prepare(Image.open(root / path).convert("RGB"))[None]) for path in paths]
    return torch.cat(rows)


def vectors(table: pa.Table) -> torch.Tensor:
    return torch.tensor(table.column("h").to_pylist())


@pytest.mark.parametrize("workers", [0, 2])
def test_every_image_of_a_class_folder_has_a_row_in_order(run, tmp_path, workers):
    names = [f"{kind}/{i}.png" for kind in ("cat", "dog", "eel") for i in range(5)]
    root = write_images(tmp_path / "photos", names)
    out = tmp_path / "made" / "features.parquet"
    data = DataConfig(spec=str(root), test_fraction=0.0)
    rows = embed(run, data, out, **{**FAST, "workers": workers}, batch_size=4)
    table = pq.read_table(out)
    assert rows == 15
    assert table.column("path").to_pylist() == names
    assert table.column("label").to_pylist() == [name.split("/")[0] for name in names]
    assert set(table.column("split").to_pylist()) == {"train"}
    assert table.schema.field("h").type == pa.list_(pa.float32(), 16)
    torch.testing.assert_close(vectors(table), by_timm(run, root, names), rtol=1e-4, atol=1e-4)
    assert sorted(path.name for path in out.parent.iterdir()) == ["features.parquet"]


def test_the_schema_says_where_the_table_is_from(run, tmp_path):
    root = write_images(tmp_path / "photos", ["a.png", "b.png"])
    embed(run, str(root), tmp_path / "t.parquet", **FAST)
    about = json.loads(pq.read_schema(tmp_path / "t.parquet").metadata[b"headwise"])
    assert about["run"] == "photos"
    assert about["timm"]["model_name"] == "resnet18"
    assert about["stem"] == "small"
    assert about["p"] == 16
    assert about["image"]["size_px"] == SIZE
    assert about["data"] == str(root)
    assert len(about["fingerprint"]) == 64


def test_images_without_labels_have_no_label_column(run, tmp_path):
    root = write_images(tmp_path / "photos", ["a.png", "b.png"])
    embed(run, str(root), tmp_path / "t.parquet", **FAST)
    assert pq.read_schema(tmp_path / "t.parquet").names == ["path", "split", "h"]


def test_a_sources_own_test_split_is_named(run, tmp_path):
    names = ["test/cat/1.png", "train/cat/2.png", "train/dog/3.png"]
    root = write_images(tmp_path / "photos", names)
    assert embed(run, str(root), tmp_path / "t.parquet", **FAST) == 3
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.column("path").to_pylist() == [names[1], names[2], names[0]]
    assert table.column("split").to_pylist() == ["train", "train", "test"]
    assert table.column("label").to_pylist() == ["cat", "dog", "cat"]


def test_a_test_split_without_labels_has_missing_ones(run, tmp_path):
    names = ["test/1.png", "train/cat/2.png", "train/dog/3.png"]
    embed(run, str(write_images(tmp_path / "photos", names)), tmp_path / "t.parquet", **FAST)
    assert pq.read_table(tmp_path / "t.parquet").column("label").to_pylist() == ["cat", "dog", None]


def test_sets_in_memory_give_the_same_as_their_files(run, tmp_path):
    names = [f"{i}.png" for i in range(5)]
    root = write_images(tmp_path / "photos", names, side=SIZE)
    pixels = np.stack([np.asarray(Image.open(root / name)) for name in names])
    np.savez(tmp_path / "photos.npz", images=pixels)
    for data, out in ((root, "files.parquet"), (tmp_path / "photos.npz", "array.parquet")):
        embed(run, str(data), tmp_path / out, **FAST, batch_size=2)
    files, array = (vectors(pq.read_table(tmp_path / f"{f}.parquet")) for f in ("files", "array"))
    assert torch.equal(files, array)


def test_settings_of_the_images_are_kept(run, tmp_path):
    root = write_images(tmp_path / "photos", [f"{k}/{i}.png" for k in "ab" for i in range(4)])
    data = DataConfig(spec=str(root), limit=4, test_fraction=0.0)
    embed(run, data, tmp_path / "t.parquet", **FAST)
    paths = pq.read_table(tmp_path / "t.parquet").column("path").to_pylist()
    assert paths == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]


def test_unreadable_images_are_left_out_and_named(run, tmp_path):
    names = [f"{i}.png" for i in range(9)]
    root = write_images(tmp_path / "photos", names, side=32)
    for name in ("2.png", "4.png", "5.png"):  # 4 and 5 are a whole batch
        truncate(root / name)
    (root / "7.png").write_bytes(b"not an image")
    data = DataConfig(spec=str(root), max_bad_fraction=0.5)
    assert embed(run, data, tmp_path / "t.parquet", **FAST, batch_size=2) == 5
    left = ["0.png", "1.png", "3.png", "6.png", "8.png"]
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.column("path").to_pylist() == left
    torch.testing.assert_close(vectors(table), by_timm(run, root, left), rtol=1e-4, atol=1e-4)
    listed = (tmp_path / "t.skipped.csv").read_text().splitlines()
    assert listed[0] == "file,reason"
    assert sorted(line.split(",")[0] for line in listed[1:]) == sorted({*names} - {*left})
    assert all("truncated" in line for line in listed if line[:5] in ("2.png", "4.png", "5.png"))


def test_too_many_unreadable_images_are_an_error_that_keeps_the_parts(run, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "PART_BATCHES", 1)
    root = write_images(tmp_path / "photos", [f"{i}.png" for i in range(8)], side=32)
    truncate(root / "6.png")
    out = tmp_path / "t.parquet"
    with pytest.raises(UserError, match=r"1 of 8 are: 6.png \(.*truncated.*max_bad_fraction"):
        embed(run, str(root), out, **FAST, batch_size=2)
    assert not out.exists()
    data = DataConfig(spec=str(root), max_bad_fraction=0.2)
    assert embed(run, data, out, **FAST, batch_size=2) == 7


@pytest.mark.parametrize("allowed", [0.01, 1.0])
def test_a_folder_without_a_readable_image_is_one_line(run, tmp_path, allowed):
    root = write_images(tmp_path / "photos", ["a.png", "b.png"], side=32)
    truncate(root / "a.png")
    truncate(root / "b.png")
    data = DataConfig(spec=str(root), max_bad_fraction=allowed)
    with pytest.raises(UserError, match="must hold a readable image") as error:
        embed(run, data, tmp_path / "t.parquet", **FAST)
    assert "\n" not in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        embed(run, str(tmp_path / "empty"), tmp_path / "t.parquet", **FAST)
    assert not (tmp_path / "t.parquet").exists()


def test_a_run_without_encoder_and_a_table_that_exists_are_refused(run, tmp_path):
    root = write_images(tmp_path / "photos", ["a.png"])
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(UserError, match=r"finished run.*encoder\.safetensors"):
        embed(tmp_path / "unfinished", str(root), tmp_path / "t.parquet", **FAST)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("t.")] == []
    (tmp_path / "t.parquet").write_text("mine")
    with pytest.raises(UserError, match="--out must be a new file"):
        embed(run, str(root), tmp_path / "t.parquet", **FAST)
    assert (tmp_path / "t.parquet").read_text() == "mine"


class Stop(BaseException):
    """Stands for whatever ends a process."""


def stop_after(monkeypatch, parts: int) -> list[Path]:
    """Have `embed` stop when it is about to write one more part than these."""
    written = []
    write = embedding.write_atomically

    def stopping(path, *args):
        if path.parent.suffix == ".parts" and len(written) == parts:
            raise Stop
        write(path, *args)
        written.append(path)

    monkeypatch.setattr(embedding, "write_atomically", stopping)
    return written


@pytest.mark.parametrize("finished", [0, 1, 2, 4])
def test_going_on_gives_the_same_bytes_as_one_go(run, tmp_path, monkeypatch, finished):
    monkeypatch.setattr(embedding, "PART_BATCHES", 2)
    names = [f"test/{k}/{i}.png" for k in "ab" for i in range(3)]
    names += [f"train/{k}/{i}.png" for k in "ab" for i in range(5)]
    root = write_images(tmp_path / "photos", names, side=32)
    truncate(root / "train/a/1.png")
    data = DataConfig(spec=str(root), max_bad_fraction=0.2)
    whole, resumed = tmp_path / "whole.parquet", tmp_path / "resumed.parquet"
    assert embed(run, data, whole, **FAST, batch_size=2) == 15
    with monkeypatch.context() as patch:
        stop_after(patch, finished)
        with pytest.raises(Stop):
            embed(run, data, resumed, **FAST, batch_size=2)
    assert not resumed.exists()
    with monkeypatch.context() as patch:
        written = stop_after(patch, 99)
        assert embed(run, data, resumed, **FAST, batch_size=2) == 15
    # Three parts for train and two for test, then the table.
    assert len(written) == 5 - finished + 1
    assert resumed.read_bytes() == whole.read_bytes()
    assert (tmp_path / "resumed.skipped.csv").read_text().count("train/a/1.png") == 1
    assert not (tmp_path / "resumed.parquet.parts").exists()


def test_parts_of_another_table_are_refused(run, tmp_path, monkeypatch):
    root = write_images(tmp_path / "photos", ["a.png", "b.png"])
    out = tmp_path / "t.parquet"
    with monkeypatch.context() as patch:
        stop_after(patch, 0)
        with pytest.raises(Stop):
            embed(run, str(root), out, **FAST)
    with pytest.raises(UserError, match="another batch_size;"):
        embed(run, str(root), out, **FAST, batch_size=7)
    with pytest.raises(UserError, match="another run, encoder_sha256;"):
        embed(make_run(tmp_path / "other", seed=1), str(root), out, **FAST)
    write_images(root, ["c.png"])
    with pytest.raises(UserError, match="another fingerprint;"):
        embed(run, str(root), out, **FAST)
    (root / "c.png").unlink()
    assert embed(run, str(root), out, **FAST) == 2


def test_the_encoder_is_evaluated_not_trained(run, tmp_path):
    """In training mode BatchNorm would make h depend on the batch."""
    root = write_images(tmp_path / "photos", [f"{i}.png" for i in range(6)])
    found = []
    for size in (1, 6):
        embed(run, str(root), tmp_path / f"{size}.parquet", **FAST, batch_size=size)
        found.append(vectors(pq.read_table(tmp_path / f"{size}.parquet")))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_stored_as_float32_and_near(run, tmp_path):
    root = write_images(tmp_path / "photos", [f"{i}.png" for i in range(4)])
    extraction: dict[str, Any] = {**FAST, "precision": "bfloat16"}
    embed(run, str(root), tmp_path / "t.parquet", **extraction)
    table = pq.read_table(tmp_path / "t.parquet")
    expected = by_timm(run, root, table.column("path").to_pylist())
    assert table.schema.field("h").type.value_type == pa.float32()
    cosine = torch.nn.functional.cosine_similarity(vectors(table), expected)
    assert cosine.min() > 0.99
    assert not torch.equal(vectors(table), expected)


def test_names_that_are_not_utf8_are_escaped(run, tmp_path):
    root = write_images(tmp_path / "photos", ["a.png", "b.png"])
    os.rename(root / "b.png", os.fsencode(root) + b"/b\xff.png")
    assert embed(run, str(root), tmp_path / "t.parquet", **FAST) == 2
    assert pq.read_table(tmp_path / "t.parquet").column("path").to_pylist() == [
        "a.png",
        r"b\udcff.png",
    ]
