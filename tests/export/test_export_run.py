"""Exported encoders load without headwise and give the same h; else nothing is left behind."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from hub import local_hub
from safetensors.torch import save_file
from torch import nn

from headwise import EncoderConfig, EvaluateConfig, evaluate, load_encoder, pretrain
from headwise.augment import whole_images
from headwise.cli import main as cli
from headwise.encoders.build import build_encoder, resolve
from headwise.errors import UserError
from headwise.export import formats
from headwise.export import verify as checks
from headwise.export.export import export_run
from headwise.export.formats import Exported, Target, loading, write_files
from headwise.export.push import push
from headwise.export.verify import verify
from headwise.model.config import PretrainConfig
from headwise.model.export import describe_encoder, save_encoder
from headwise.model.export import load_encoder as load_file_encoder
from headwise.runs.directory import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: PretrainConfig) -> Run:
    """A ResNet with a small stem, measured."""
    made = pretrain(replace(tiny, epochs=1), tmp_path_factory.mktemp("export") / "a", quiet=True)
    evaluate(made, config=EvaluateConfig(protocols=("knn",), device="cpu", baselines=False))
    return made


def images(size: int) -> torch.Tensor:
    return torch.randn(7, 3, size, size, generator=torch.Generator().manual_seed(0))


def exported(folder: Path, name: str, size: int = 32) -> Exported:
    """As from a run of this encoder."""
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    config = resolve(EncoderConfig(name=name, stem="standard"), size)
    model = build_encoder(config, size, seed=0)
    save_encoder(model, config, whole_images(size, mean, std), folder / f"{name}.safetensors")
    file = folder / f"{name}.safetensors"
    encoder = load_file_encoder(file)
    p = encoder(images(size)[:1]).shape[1]
    return Exported(encoder=encoder, about=describe_encoder(file), size=size, p=p)


@pytest.mark.parametrize("name", ["resnet10t", "test_vit", "test_convnext"])
def test_timm_loads_the_folder_with_its_images(name: str, tmp_path: Path) -> None:
    found, x = exported(tmp_path, name), images(32)
    (tmp_path / "out").mkdir()
    write_files("timm", found, x, tmp_path / "out")
    model: Any = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    with torch.no_grad():
        for n in (1, 2, 7):
            torch.testing.assert_close(model(x[:n]), found.encoder(x[:n]))
    cfg = model.pretrained_cfg
    assert [*cfg["mean"], *cfg["input_size"]] == [0.1, 0.2, 0.3, 3, 32, 32]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["num_classes"] == 0
    assert config["num_features"] == found.p
    assert {"architecture", "model_args", "pretrained_cfg"} <= config.keys()


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "resnet10t"])
def test_onnx_takes_any_batch(name: str, tmp_path: Path) -> None:
    found, x = exported(tmp_path, name), images(32)
    write_files("onnx", found, x, tmp_path)
    assert not list(tmp_path.glob("*.data"))
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    for n in (1, 2, 7):
        h: Any = session.run(["h"], {"images": x[:n].numpy()})[0]
        with torch.no_grad():
            np.testing.assert_allclose(h, found.encoder(x[:n]).numpy(), rtol=1e-4, atol=1e-4)
    about = session.get_modelmeta().custom_metadata_map
    assert "resized to 32 px (bilinear)" in about["preprocessing"]
    assert json.loads(about["image"])["mean"] == [0.1, 0.2, 0.3]


def test_a_small_stem_is_verified_and_its_card_has_the_lines(run: Run, tmp_path: Path) -> None:
    """The lines of the card, run as they stand."""
    out = export_run(run, "timm", tmp_path / "out", licence="apache-2.0")
    text = (out / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: timm\nlicense: apache-2.0\n")
    assert "- image-feature-extraction\n" in text
    assert "`timm.create_model` alone cannot load it" in text
    assert "| measure | value | 95 % interval |" in text
    assert str(tmp_path) not in text
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    lines = text.partition("```python\n")[2].partition("```")[0].replace("DIR", str(out))
    found: dict[str, Any] = {}
    exec(lines, found)
    x = images(8)
    with torch.no_grad():
        assert torch.equal(found["encoder"](x), load_encoder(run)(x))


def test_torch_alone_runs_the_program(run: Run, tmp_path: Path) -> None:
    out = export_run(run, "torch", tmp_path / "out")
    encoder = torch.export.load(out / "encoder.pt2").module()
    for n in (1, 2, 7):
        with torch.no_grad():
            torch.testing.assert_close(encoder(images(8)[:n]), load_encoder(run)(images(8)[:n]))


def test_another_h_leaves_nothing_behind(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(to: Target, found: Exported, x: torch.Tensor, at: Path) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return {"1": found.encoder(x[:1]), "2": found.encoder(x[:2]) + 1e-3}

    monkeypatch.setattr(checks, "_elsewhere", other)
    with pytest.raises(
        UserError, match=r"differs by 0\.001 for 2 images at a time; nothing is writ"
    ):
        export_run(run, "timm", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_files_that_do_not_load_elsewhere_are_refused(tmp_path: Path) -> None:
    found = exported(tmp_path, "test_convnext")
    (tmp_path / "out").mkdir()
    write_files("timm", found, images(32), tmp_path / "out")
    save_file({"x": torch.zeros(1)}, tmp_path / "out" / "model.safetensors")
    with pytest.raises(UserError, match="must load without headwise; --to timm: RuntimeError"):
        verify("timm", found, images(32), tmp_path / "out")


def test_it_is_pushed_to_the_hub(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a stand-in on this machine, from which timm's way of loading then reads."""
    out = tmp_path / "out"
    out.mkdir()
    found = exported(tmp_path, "test_convnext")
    write_files("timm", found, images(32), out)
    (out / "README.md").write_text("---\nlibrary_name: timm\n---\n# x\n")
    with local_hub(monkeypatch, str(tmp_path / "cache")) as hub:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        assert push(out, "someone/encoder") == f"{hub.address}/someone/encoder"
        for path in out.iterdir():
            assert hub.files[f"someone/encoder/{path.name}"] == path.read_bytes()
        assert hub.tokens == {"Bearer hf_secret"}
    assert "hf_secret" not in "".join(p.read_text() for p in out.glob("*.[jm][sd]*n"))


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_wrong_words_are_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(run.path), "--out", str(tmp_path / "out")]
    with local_hub(monkeypatch, str(tmp_path / "cache")):
        line = said([*words, "--push", "someone/encoder"], capsys)
        assert "--push needs a token of the Hugging Face hub; found none" in line
        assert "--push must be OWNER/NAME" in said([*words, "--push", "encoder"], capsys)
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda _: None)
    line = said([*words, "--to", "onnx"], capsys)
    assert "pip install 'headwise[onnx]'" in line
    assert not (tmp_path / "out").exists()


def test_an_own_encoder_has_no_form_for_timm(tmp_path: Path, tiny: PretrainConfig) -> None:
    def small() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    made = pretrain(replace(tiny, epochs=1, knn_every=0), tmp_path / "a", encoder=small, quiet=True)
    with pytest.raises(UserError, match="--to timm needs a timm model"):
        export_run(made, "timm", tmp_path / "out")
    about = describe_encoder(made.path / "encoder.safetensors")
    found = Exported(encoder=small().eval(), about=about, size=8, p=4)
    write_files("torch", found, images(8), tmp_path)
    assert (tmp_path / "encoder.pt2").is_file()


def test_lines_for_onnx_need_onnxruntime_alone(tmp_path: Path) -> None:
    found = exported(tmp_path, "test_convnext")
    assert loading("onnx", found).startswith("import onnxruntime\n")
