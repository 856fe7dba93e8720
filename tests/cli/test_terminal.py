"""Signs and names that an output, a table or a page cannot hold are written in another way."""

import io
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import headwise
from headwise import DataConfig, EvaluateConfig, embed, evaluate, pretrain
from headwise.cli.main import COMMANDS, main
from headwise.cli.terminal import degrade_signs
from headwise.report import rebuild


def ascii_output(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    return written


def test_every_sign_has_letters(monkeypatch):
    source = Path(headwise.__file__).parent
    texts = (path.read_text(encoding="utf-8") for path in source.rglob("*.py"))
    signs = sorted({sign for text in texts for sign in text if ord(sign) > 127})
    written = ascii_output(monkeypatch)
    degrade_signs()
    print("0.9 ± 0.1, 8×8, σ é ² …", *signs, "\udce9", flush=True)
    text = written.getvalue().decode("ascii")
    assert text.startswith("0.9 +/- 0.1, 8x8, sigma e 2 ...")
    assert "?" not in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_without_utf_8(monkeypatch, command):
    written = ascii_output(monkeypatch)
    with pytest.raises(SystemExit) as stop:
        main([command, "--help", "all"])
    assert stop.value.code == 0
    sys.stdout.flush()
    assert b"usage" in written.getvalue() or command.encode() in written.getvalue()


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are UTF-8")
def test_folders_whose_names_are_not_utf_8(tmp_path, tiny, monkeypatch):
    noise = np.random.default_rng(0)
    names = [b"caf\xe9", b"\xff\xfe", "thé".encode()]
    for split in (b"train", b"test"):
        for name in names:
            folder = os.path.join(os.fsencode(tmp_path), b"images", split, name)
            os.makedirs(folder)
            for i in range(8):
                pixels = noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(os.path.join(folder, b"\xe9%d.png" % i), "PNG")
    data = DataConfig(spec=str(tmp_path / "images"))
    config = vars(tiny) | {"data": data, "epochs": 1, "batch_size": 8}
    run = pretrain(type(tiny)(**config), tmp_path / "run", quiet=True)
    protocols = EvaluateConfig(protocols=("knn", "linear"), taps=("h",), baselines=False)
    evaluate(run.path, config=protocols)
    rebuild(run.path)
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "caf\\udce9" in page
    assert list((run.path / "figures").glob("*.png"))
    embed(run.path, data, tmp_path / "h.parquet", workers=0, quiet=True)
    labels = set(pq.read_table(tmp_path / "h.parquet").column("label").to_pylist())
    assert labels == {"caf\\udce9", "\\udcff\\udcfe", "thé"}
    written = ascii_output(monkeypatch)
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(run.path), "--protocols", "knn", "--taps", "h"])
    assert stop.value.code == 0
    assert b"knn/h" in written.getvalue()
