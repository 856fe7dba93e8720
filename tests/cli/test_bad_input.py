"""Bad input: one line on standard error, exit code 2, and nothing left behind."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headwise.cli import main as cli
from headwise.model.config import PretrainConfig
from headwise.pretraining.loop import pretrain

DIGITS = ("--data", "builtin:digits", "--device", "cpu", "--quiet")


def said(words: list[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says, having checked that it is one line and that it exits with 2."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pretrian"], "did you mean 'pretrain'"),
        (["pretrain", "--epoch", "3"], "did you mean '--epochs'"),
        (["pretrain", "--encoder", "resnet81"], "did you mean 'resnet"),
        (["pretrain", "--head", "transfomer"], "did you mean 'transformer'"),
        (["compare", "--heads", "mlp", "transfomer"], "did you mean 'transformer'"),
        (["compare", "--heads", "mlp", "mlp"], "each arm once"),
        (["pretrain", "--recipe", "cifar"], "did you mean 'cifar10'"),
        (["pretrain", "--epochs", "many"], "--epochs"),
        (["pretrain", "--epochs", "0"], "--epochs must be at least 1; got 0"),
        (["pretrain", "--temperature", "-1"], "--temperature must be positive; got -1"),
        (["pretrain", "--head", "mlp", "--head.context", "self"], "not a setting of the mlp head"),
        (["pretrain", "--batch-size", "5000"], "at most the number of training images"),
        (["pretrain", "--batch-size", "1"], "at least 2"),
        (["pretrain", "--optim.warmup-epochs", "200"], "less than the run's 100 epochs"),
        (["pretrain", "--encoder", "vit_tiny_patch16_224", "--encoder.stem", "small"], "ResNets"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    place = ["--out", out, *DIGITS] if len(words) > 1 else []
    assert expected in said([*words, *place], capsys)
    assert not out.exists()


def test_no_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--out" in said(["pretrain", *DIGITS], capsys)


@pytest.mark.parametrize("kind", ["missing", "empty", "no images", "one image"])
def test_folders(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "images"
    if kind != "missing":
        folder.mkdir()
    if kind == "no images":
        (folder / "notes.txt").write_text("not an image")
    if kind == "one image":
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / "one.png")
    line = said(["pretrain", "--data", folder, "--out", tmp_path / "out"], capsys)
    assert str(folder) in line
    assert not (tmp_path / "out").exists()


def test_out_that_is_not_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("precious")
    assert "--resume" in said(["pretrain", *DIGITS, "--out", tmp_path], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"epoch": 3}', "did you mean 'epochs'"),
        ('{"head": {"dpth": 3}}', "did you mean 'depth'"),
        ('{"epochs": "three"}', "must be of type int; got 'three'"),
        ("{", "must be JSON"),
    ],
)
def test_config_files(
    text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(text)
    words = ["pretrain", "--config", tmp_path / "config.json", "--out", tmp_path / "out"]
    assert expected in said(words, capsys)
    assert not (tmp_path / "out").exists()


def test_resume_takes_no_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--epochs" in said(["pretrain", "--resume", tmp_path, "--epochs", "3"], capsys)
    assert "config.json" in said(["pretrain", "--resume", tmp_path], capsys)


def test_a_run_that_is_not_finished(
    tmp_path: Path, tiny: PretrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    run = pretrain(tiny, tmp_path / "run", quiet=True)
    for name in ("DONE", "encoder.safetensors"):  # the last two that are written
        (run.path / name).unlink()
    before = sorted(run.path.rglob("*"))
    for command in (["evaluate", run.path], ["embed", run.path, "builtin:digits"]):
        place = ["--out", tmp_path / "h.parquet"] if command[0] == "embed" else []
        assert "--resume" in said([*command, *place], capsys)
    assert sorted(run.path.rglob("*")) == before
    assert not (tmp_path / "h.parquet").exists()


def test_evaluations(
    tmp_path: Path, tiny: PretrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    run = pretrain(tiny, tmp_path / "run", quiet=True).path
    unlabelled = tmp_path / "flat"
    unlabelled.mkdir()
    for i in range(4):
        Image.fromarray(np.full((9, 9, 3), 60 * i, np.uint8)).save(unlabelled / f"{i}.png")
    assert "did you mean 'linear'" in said(["evaluate", run, "--protocols", "linaer"], capsys)
    assert "g1" in said(["evaluate", run, "--taps", "g9"], capsys)
    assert "needs labels" in said(["evaluate", run, "--data", unlabelled], capsys).replace(
        "need labels", "needs labels"
    )
    assert not (run / "results.json").exists()


def test_disk_full(
    tmp_path: Path,
    tiny: PretrainConfig,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second checkpoint does not fit: one line, and the first is still there, whole."""
    write, count = Path.write_bytes, 0

    def full(path: Path, content: bytes) -> int:
        nonlocal count
        count += "optimizer" in path.name
        if count == 2:
            raise OSError(28, "No space left on device", str(path))
        return write(path, content)

    config = tmp_path / "config.json"
    from headwise.config import to_dict

    config.write_text(json.dumps(to_dict(tiny)))
    monkeypatch.setattr(Path, "write_bytes", full)
    out = tmp_path / "run"
    line = said(["pretrain", "--config", config, "--out", out, "--quiet"], capsys)
    assert "No space left on device" in line
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000003"]
    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(SystemExit) as stop:
        cli.main(["pretrain", "--resume", str(out), "--quiet"])
    assert stop.value.code == 0
    assert (out / "DONE").exists()
