"""Start weights: from every source, refused where they do not match, kept in the run."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hub import local_hub
from safetensors.torch import save_file
from torch import nn

from headwise import EncoderConfig, EvaluateConfig, evaluate, load_encoder, pretrain, resume
from headwise.augment import AugmentConfig
from headwise.cli import main as cli
from headwise.comparison.arms import own_settings
from headwise.comparison.baselines import baselines
from headwise.comparison.measuring import started
from headwise.data import open_images
from headwise.data.split import labelled_splits
from headwise.errors import UserError
from headwise.files import read_json
from headwise.model.build import start_encoder
from headwise.model.config import PretrainConfig, ResolvedConfig, resolve
from headwise.model.export import START_FILE
from headwise.model.start import StartWeights
from headwise.model.trained import load_config
from headwise.report.prose.worth import worth
from headwise.runs.directory import Run

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
NAME = "test_resnet"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, tiny: PretrainConfig) -> Run:
    return pretrain(replace(tiny, epochs=1), tmp_path_factory.mktemp("first") / "a", quiet=True)


def from_weights(tiny: PretrainConfig, weights: str, name: str = NAME) -> PretrainConfig:
    encoder = EncoderConfig(name=name, weights=weights)
    return replace(tiny, encoder=encoder, epochs=1, knn_every=0)


def resolved(config: PretrainConfig) -> ResolvedConfig:
    return resolve(config, open_images(config.data).train)


def equal(one: nn.Module, other: dict[str, torch.Tensor]) -> bool:
    own = one.state_dict()
    return all(torch.equal(own[name], other[name]) for name in own)


def hub_folder(folder: Path, model: Any) -> Path:
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    cfg = {"mean": MEAN, "std": STD, "input_size": [3, 96, 96]}
    about = {"architecture": NAME, "num_classes": 7, "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize("kind", ["pth", "safetensors", "local-dir", "hf-hub", "timm"])
def test_every_source_gives_its_weights_and_its_normalisation(
    kind: str,
    tmp_path: Path,
    tiny: PretrainConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "headwise")
    plain = timm.create_model
    model: Any = plain(NAME, num_classes=7)
    folder = tmp_path / "hub"
    weights, mean = str(tmp_path / f"w.{kind}"), tuple(model.pretrained_cfg["mean"])
    match kind:
        case "pth":
            inner = {f"module.encoder.{n}": value for n, value in model.state_dict().items()}
            torch.save({"state_dict": inner | {"module.head.1": torch.ones(3)}}, weights)
        case "safetensors":
            save_file(model.state_dict(), weights)
        case "timm":
            weights = "timm"

            def made(model_name: str, pretrained: bool = False, **more: Any) -> nn.Module:
                ours = pretrained and "pretrained_cfg_overlay" not in more
                return model if ours else plain(model_name, pretrained, **more)

            monkeypatch.setattr(timm, "create_model", made)
        case _:
            mean = MEAN
            hub_folder(folder, model)
            weights = f"{kind}:{folder if kind == 'local-dir' else 'someone/encoder'}"
    with local_hub(monkeypatch, str(tmp_path / "cache")) as hub:
        if kind == "hf-hub":
            hub.files = {f"someone/encoder/{p.name}": p.read_bytes() for p in folder.iterdir()}
        config = resolved(from_weights(tiny, weights))
        started = start_encoder(config)
    assert config.augment.mean == mean
    assert config.encoder.weights.startswith(f"{weights}@sha256:")
    assert config.encoder.stem == "standard"
    assert started is not None
    assert equal(started, model.state_dict())
    if kind == "pth":
        assert "left out: fc.weight, fc.bias, module.head.1" in caplog.text


def test_position_tables_are_adapted_as_timm_does(tmp_path: Path, tiny: PretrainConfig) -> None:
    model = timm.create_model("test_vit", num_classes=3)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    config = from_weights(tiny, str(tmp_path / "w.pth"), "test_vit")
    config = replace(config, augment=replace(config.augment, size=32))
    started = start_encoder(resolved(config))
    expected: Any = timm.create_model("test_vit", num_classes=0)
    expected.load_state_dict(model.state_dict(), strict=False)
    expected.set_input_size((32, 32))
    assert started is not None
    assert equal(started, expected.state_dict())


def test_a_run_starts_where_another_ended(tmp_path: Path, tiny: PretrainConfig, first: Run) -> None:
    """Its stem, widths and normalisation follow; it is resumed, measured and extended without the
    other run."""
    away = Path(shutil.copytree(first.path, tmp_path / "other"))
    run = pretrain(from_weights(tiny, f"run:{away}", "resnet-small"), tmp_path / "b", quiet=True)
    theirs, config = load_config(first), load_config(run)
    assert config.augment == theirs.augment
    assert replace(config.encoder, weights="none") == theirs.encoder
    ended = load_encoder(first).state_dict()
    assert equal(load_encoder(run.path / START_FILE), ended)
    assert not equal(load_encoder(run), ended)
    shutil.rmtree(away)
    expected = (run.path / "encoder.safetensors").read_bytes()
    shutil.rmtree(run.path / "checkpoints")
    (run.path / "DONE").unlink()
    assert (resume(run.path, quiet=True).path / "encoder.safetensors").read_bytes() == expected
    known = EvaluateConfig(protocols=("knn",), device="cpu")
    found = evaluate(run, config=known)
    assert found["knn/start"].value == evaluate(first, config=known)["knn/h"].value
    longer = pretrain(replace(config, epochs=2), tmp_path / "c", extends=run.path, quiet=True)
    assert (longer.path / START_FILE).read_bytes() == (run.path / START_FILE).read_bytes()


def test_a_resume_with_other_weights_is_refused(
    tmp_path: Path, tiny: PretrainConfig, first: Run
) -> None:
    run = pretrain(
        from_weights(tiny, f"run:{first.path}", "resnet-small"), tmp_path / "b", quiet=True
    )
    shutil.copyfile(run.path / "encoder.safetensors", run.path / START_FILE)
    (run.path / "DONE").unlink()
    shutil.rmtree(run.path / "checkpoints")
    with pytest.raises(UserError, match="they have changed; put them back"):
        resume(run.path, quiet=True)


def test_settings_without_start_weights_are_known_as_before(tiny: PretrainConfig) -> None:
    """The name of a study's cell is a hash of them."""
    assert "encoder.weights" not in own_settings(resolved(tiny))


def test_equal_weights_are_one_setting_wherever_they_lie(
    tmp_path: Path, tiny: PretrainConfig, first: Run
) -> None:
    away = shutil.copy(first.path / "encoder.safetensors", tmp_path / "w.safetensors")
    one, other = (
        own_settings(resolved(from_weights(tiny, weights, "resnet-small")))
        for weights in (f"run:{first.path}", str(away))
    )
    assert one == other
    assert len(one["encoder.weights"]) == 64


def test_a_comparison_has_the_start_weights_as_a_baseline(
    tmp_path: Path, tiny: PretrainConfig, first: Run
) -> None:
    """Also where the first arm has none; not where arms have different ones."""
    config = from_weights(tiny, f"run:{first.path}", "resnet-small")
    run = pretrain(config, tmp_path / "b", quiet=True)
    other = pretrain(
        replace(config, encoder=EncoderConfig(name="resnet-small", weights=f"run:{run.path}")),
        tmp_path / "c",
        quiet=True,
    )
    assert started([first, run]) is run
    assert started([run, other]) is None
    assert started([first]) is None
    images = labelled_splits(open_images(tiny.data))
    own = load_config(first)
    path = tmp_path / "baselines.npz"
    found = baselines(own, images, path, scratch=False, first=path, started=run)
    theirs = baselines(load_config(run), images, tmp_path / "2.npz", scratch=False, first=path)
    assert {"knn/start", "linear/start"} <= found.keys()
    assert "knn/start" not in theirs


def test_one_sentence_says_whether_pretraining_was_worth_it() -> None:
    assert worth("under mlp", ["raw pixels", "the start weights"], []) == (
        "Was pretraining on these images worth it under mlp? Yes: it is above raw pixels and the "
        "start weights."
    )
    assert worth("for this network", ["raw pixels"], ["its start weights", "scratch"]) == (
        "Was pretraining on these images worth it for this network? That is not shown: it is above "
        "raw pixels, but not above its start weights or scratch."
    )


def test_a_stem_is_that_of_the_weights_or_refused() -> None:
    known = EncoderConfig(name="resnet18", stem="standard", depths=(1, 1, 1, 1))
    weights = StartWeights(source="w.pth", tensors={}, encoder=known, mean=MEAN, std=STD)
    encoder, views = weights.settings(EncoderConfig(), AugmentConfig(std=MEAN))
    assert encoder == known
    assert (views.mean, views.std) == (MEAN, MEAN)
    with pytest.raises(
        UserError, match=r"must be that of encoder.weights w.pth, standard; got small"
    ):
        weights.settings(EncoderConfig(stem="small"), AugmentConfig())


WRONG = {
    "nothing": ("nowhere.pth", "must be none, timm, a file"),
    "no folder": ("local-dir:nowhere", "must be a folder of the hub, with config.json"),
    "no run": ("run:nowhere", "which does not exist"),
    "code": ("FOLDER/code.pth", "without code"),
    "other names": ("FOLDER/names.pth", " missing (conv1"),
    "another shape": ("FOLDER/grey.pth", "conv1.0.weight (16, 1, 3, 3) for (16, 3, 3, 3)"),
    "not finite": ("FOLDER/nan.pth", "must be finite"),
    "another encoder": ("local-dir:FOLDER/hub", "give --encoder test_vit"),
    "no network": ("timm", "take new weights: --encoder.weights none"),
    "not on the hub": ("hf-hub:someone/else", "must have config.json and model.safetensors"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_weights_that_cannot_be_used_are_one_line(
    kind: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights, expected = WRONG[kind]
    tensors = timm.create_model(NAME, num_classes=0).state_dict()
    stem = next(iter(tensors))
    torch.save({"weights": print}, tmp_path / "code.pth")
    torch.save({f"my-{n}.x": value for n, value in tensors.items()}, tmp_path / "names.pth")
    torch.save(tensors | {stem: tensors[stem][:, :1]}, tmp_path / "grey.pth")
    torch.save(tensors | {stem: tensors[stem] * float("nan")}, tmp_path / "nan.pth")
    folder = hub_folder(tmp_path / "hub", timm.create_model("test_vit"))
    about = read_json(folder / "config.json") | {"architecture": "test_vit"}
    (folder / "config.json").write_text(json.dumps(about))
    words = [
        "pretrain",
        "--data",
        "builtin:digits",
        "--encoder",
        NAME,
        "--out",
        str(tmp_path / "o"),
    ]
    typed = weights.replace("FOLDER", str(tmp_path))
    with local_hub(monkeypatch, str(tmp_path / "cache")), pytest.raises(SystemExit) as stop:
        cli.main([*words, "--device", "cpu", "--quiet", "--encoder.weights", typed])
    assert stop.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert expected in line
    assert not (tmp_path / "o").exists()
