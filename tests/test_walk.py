"""The command line from end to end, as a user goes: compare, resume, evaluate, embed, take away."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from headwise import EvaluateConfig, evaluate, load_encoder, open_images
from headwise.cli import main as cli
from headwise.data import DataConfig

Command = Callable[..., subprocess.CompletedProcess[str]]

TINY = (
    *("--encoder", "resnet-small", "--encoder.widths", "8", "8", "16", "16"),
    *("--batch-size", "20", "--device", "cpu", "--log-every", "2", "--quiet"),
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures in two class folders, of mixed sizes, one of them damaged."""
    folder = tmp_path_factory.mktemp("walk") / "photos"
    draw = np.random.default_rng(0)
    for label, tone in (("dark", 60), ("light", 190)):
        (folder / label).mkdir(parents=True)
        for i in range(20):
            size = (24 + i % 3, 20, 3)
            pixels = np.clip(draw.normal(tone, 30, size), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i:02}.png")
    whole = (folder / "dark" / "03.png").read_bytes()
    (folder / "dark" / "03.png").write_bytes(whole[: len(whole) // 2])
    return folder


def test_compare_evaluate_embed(headwise: Command, tmp_path: Path) -> None:
    out = tmp_path / "heads"
    words = ("--data", "builtin:digits", "--limit", "200", "--epochs", "2", "--seeds", "1", *TINY)
    done = headwise("compare", *words, "--heads", "identity", "transformer", "--out", out)
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["heads"]) == ["identity", "transformer"]
    for row in summary["heads"].values():
        expected = {"knn/h", "linear/h", "knn/z", "linear/z", "parameters", "seconds"}
        assert expected <= row.keys()
        assert all(0 <= row[key] <= 1 for key in expected - {"parameters", "seconds"})
    assert set(summary["baselines"]["pixels"]) >= {"knn/h", "linear/h"}
    assert set(summary["baselines"]["untrained"]) >= {"knn/h", "linear/h"}
    assert set(summary["baselines"]["scratch"]) == {"linear/h"}
    # Digits are easy from raw pixels: the probes work.
    assert summary["baselines"]["pixels"]["linear/h"] > 0.6
    assert f"{100 * summary['heads']['transformer']['linear/h']:.1f}" in done.stdout
    page = (out / "report.html").read_text()
    assert "transformer" in page
    with Image.open(out / "views.png") as sheet:
        assert sheet.width > 200

    # The same images, steps and draws under both heads: what the encoder starts from is the same.
    first = [
        json.loads((out / f"{name}-seed0" / "metrics.jsonl").read_text().splitlines()[0])
        for name in ("identity", "transformer")
    ]
    assert first[0]["images_seen"] == first[1]["images_seen"]

    before = (out / "summary.json").read_bytes()
    again = headwise("compare", "--resume", out, "--quiet")
    assert again.returncode == 0, again.stderr
    assert (out / "summary.json").read_bytes() == before

    run = out / "transformer-seed0"
    judged = headwise("evaluate", run, "--protocols", "knn", "linear", "--taps", "h", "g1", "z")
    assert judged.returncode == 0, judged.stderr
    results = json.loads((run / "results.json").read_text())
    (section,) = results["sections"]
    results = section["results"]
    assert results["knn/h"]["value"] == pytest.approx(summary["heads"]["transformer"]["knn/h"])
    assert "linear/g1" in results
    assert results["knn/h"]["n"] == 200

    table = tmp_path / "features.parquet"
    wrote = headwise("embed", run, "builtin:digits", "--out", table, "--quiet")
    assert wrote.returncode == 0, wrote.stderr
    rows = pq.read_table(table)
    assert len(rows) == 1797
    assert rows.schema.field("h").type.list_size == 16


def test_a_folder_of_photographs(headwise: Command, photos: Path, tmp_path: Path) -> None:
    """Mixed sizes stay files; the damaged one is skipped and named; the encoder is taken away."""
    run = tmp_path / "run"
    words = ("--data", photos, "--augment.size", "16", "--epochs", "2", *TINY, "--batch-size", "8")
    done = headwise("pretrain", *words, "--workers", "1", "--out", run)
    assert done.returncode == 2
    assert "dark/03.png" in done.stderr
    assert not (run / "DONE").exists()

    lenient = (*words, "--data.max-bad-fraction", "0.1", "--workers", "1")
    done = headwise("pretrain", *lenient, "--out", tmp_path / "kept")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "kept"
    assert "dark/03.png" in (run / "skipped.csv").read_text()
    h = load_encoder(run)(torch.zeros(2, 3, 16, 16))
    assert h.shape == (2, 16)
    results = evaluate(run, config=EvaluateConfig(protocols=("knn",), taps=("h",)))
    assert results["knn/h"]["n"] == len(open_images(DataConfig(spec=str(photos))).test or ())


def test_unlabelled_photographs(headwise: Command, photos: Path, tmp_path: Path) -> None:
    """All images are trained on, compare copes without probes, and evaluate says what it lacks."""
    words = ("--data", photos / "light", "--augment.size", "16", "--epochs", "1", *TINY)
    out = tmp_path / "out"
    one = ("--heads", "mlp", "--seeds", "1", "--batch-size", "8")
    done = headwise("compare", *words, *one, "--out", out)
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert summary["images"] == 20
    assert "linear/h" not in summary["heads"]["mlp"]
    judged = headwise("evaluate", out / "mlp-seed0")
    assert judged.returncode == 2
    assert "labels" in judged.stderr


@pytest.mark.parametrize("command", ["pretrain", "evaluate", "compare", "embed"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    assert "--data.spec" in capsys.readouterr().out
