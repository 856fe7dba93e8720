"""`headwise explore`, and what `embed` adds to a table for other programs."""

import importlib.util
import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from headwise.augment import whole_images
from headwise.cli.main import main
from headwise.encoders.build import EncoderConfig, build_encoder, resolve
from headwise.model.export import save_encoder

SIZE = 16


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "photos" / "encoder.safetensors"
    config = resolve(EncoderConfig(name="resnet-small", widths=(8, 8, 16, 16)), SIZE)
    views = whole_images(SIZE, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    save_encoder(build_encoder(config, SIZE, 0), config, views, path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of grey squares, each of one brightness."""
    root = tmp_path_factory.mktemp("photos")
    for i in range(12):
        path = root / ("cat" if i % 2 else "dog") / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (24, 24), (20 * i,) * 3).save(path)
    return root


def done(*words: object) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words), "--quiet"])
    assert stop.value.code == 0


def refused(capsys, *words: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words), "--quiet"])
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def page_data(path):
    text = path.read_text()
    start = text.index('id="data">') + len('id="data">')
    return json.loads(text[start : text.index("</script>", start)])


def test_embed_writes_what_other_programs_open(run, photos, tmp_path):
    out = tmp_path / "t.parquet"
    extras = ("--thumbnails", 12, "--map", "--neighbors", 3, "--to", "projector")
    done("embed", run, photos, "--out", out, "--device", "cpu", "--workers", 0, *extras)
    table = pq.read_table(out)
    assert table.column_names == ["path", "label", "split", "image", "h", "neighbors", "x", "y"]
    h = np.array(table.column("h").to_pylist())
    unit = h / np.linalg.norm(h, axis=1, keepdims=True)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -1)
    for row, found in enumerate(table.column("neighbors").to_pylist()):
        far = 1 - np.sort(similar[row])[::-1][:3]
        np.testing.assert_allclose(found["distances"], far, atol=1e-5)
        np.testing.assert_allclose(1 - similar[row][found["ids"]], far, atol=1e-5)
    assert np.isfinite(table.column("x").to_numpy()).all()
    for name, value in zip(
        table.column("path").to_pylist(), table.column("image").to_pylist(), strict=True
    ):
        picture = Image.open(io.BytesIO(value["bytes"]))
        assert picture.size == (12, 12)
        assert abs(int(np.asarray(picture)[6, 6, 0]) - 20 * int(name[-6:-4])) <= 4
        assert value["path"] == name.rpartition("/")[2]
    metadata = table.schema.metadata
    feature = json.loads(metadata[b"huggingface"])["info"]["features"]["image"]
    assert feature == {"_type": "Image"}
    assert "t-SNE" in json.loads(metadata[b"headwise"])["map"]

    folder = tmp_path / "t.projector"
    assert np.allclose(np.loadtxt(folder / "h.tsv", delimiter="\t"), h, rtol=1e-4, atol=1e-5)
    lines = (folder / "metadata.tsv").read_text().splitlines()
    assert lines[0] == "path\tlabel\tsplit"
    assert [line.split("\t")[0] for line in lines[1:]] == table.column("path").to_pylist()
    with Image.open(folder / "sprite.png") as sprite:
        assert sprite.size == (48, 48)
    said = (folder / "projector_config.pbtxt").read_text()
    assert "single_image_dim: 12 single_image_dim: 12" in said
    assert 'tensor_path: "h.tsv"' in said


def test_row_groups_are_small_enough_for_a_viewer(run, photos, tmp_path, monkeypatch):
    from headwise.explore import rewriting
    from headwise.features import table as embedding

    monkeypatch.setattr(embedding, "ROW_GROUP", 5)
    monkeypatch.setattr(rewriting, "ROW_GROUP", 5)
    for extras in ((), ("--neighbors", 50)):
        out = tmp_path / f"{len(extras)}.parquet"
        done("embed", run, photos, "--out", out, "--device", "cpu", "--workers", 0, *extras)
        file = pq.ParquetFile(out)
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        assert sum(sizes) == 12
        assert max(sizes) <= 5
    assert len(pq.read_table(out).column("neighbors")[0].as_py()["ids"]) == 11


def test_a_page_of_a_run_and_one_of_its_table(run, photos, tmp_path):
    out = tmp_path / "page.html"
    done("explore", run, photos, "--out", out, "--device", "cpu", "--workers", 0)
    data = page_data(out)
    assert len(data["paths"]) == 12
    assert [one["name"] for one in data["colours"]] == [
        "label", "cluster", "split", "outlier score",
    ]  # fmt: skip
    assert "x" in pq.read_schema(tmp_path / "page.parquet").names
    again = tmp_path / "again.html"
    done("explore", tmp_path / "page.parquet", "--out", again)
    assert page_data(again) == data
    named = tmp_path / "named.html"
    done("explore", tmp_path / "page.parquet", photos, "--out", named, "--workers", 0)
    assert page_data(named)["px"] == 24  # the images themselves, not what the encoder saw
    assert page_data(named)["x"] == data["x"]


def test_what_cannot_be_shown_is_said_in_one_line(run, photos, tmp_path, capsys, monkeypatch):
    plain = tmp_path / "plain.parquet"
    done("embed", run, photos, "--out", plain, "--device", "cpu", "--workers", 0)
    page = tmp_path / "page.html"
    assert "has no thumbnails" in refused(capsys, "explore", plain, "--out", page)
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (9, 9)).save(other / "stranger.png")
    line = refused(capsys, "explore", plain, other, "--out", page)
    assert "none of its 12 paths is among them" in line
    (tmp_path / "page.parquet").write_bytes(b"precious")
    line = refused(capsys, "explore", run, photos, "--out", page)
    assert "give it instead of the run, or remove it" in line
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *p: None if name == "plotly" else find(name, *p)
    )
    line = refused(capsys, "explore", plain, photos, "--out", page)
    assert "pip install 'headwise[explore]'" in line
    assert not page.exists()
