import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from narrow import present
from resolved import resolved_augment
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.data import resolve_model_data_config
from torch import nn

import headwise
from headwise.encoders.build import EncoderConfig, build_encoder, resolve
from headwise.errors import UserError
from headwise.model.export import describe_encoder, digest, load_encoder, save_encoder

SIZE = 32
VIEWS = resolved_augment(size=SIZE, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
TINY = {"name": "resnet-small", "widths": (8, 8, 16, 16)}
ENCODERS = {
    "standard": EncoderConfig(**TINY, stem="standard"),
    "small": EncoderConfig(**TINY, stem="small"),
    "small-strided": EncoderConfig(**TINY, stem="small-strided"),
    "resnet-small": EncoderConfig(name="resnet-small"),
    "bottlenecks": EncoderConfig(name="resnet50", depths=(1, 1, 1, 1), widths=(4, 4, 8, 8)),
    "vision transformer": EncoderConfig(name="vit_tiny_patch16_224"),
}


def images() -> torch.Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=list(ENCODERS))
def saved(request, tmp_path_factory):
    """An encoder, as it is after some training, and its run."""
    run = tmp_path_factory.mktemp("runs")
    config = ENCODERS[request.param]
    encoder = build_encoder(config, SIZE, seed=3)
    with torch.no_grad():
        for _ in range(2):
            encoder(images())  # moves the statistics of BatchNorm
    encoder = encoder.to(memory_format=torch.channels_last)
    save_encoder(encoder, resolve(config, SIZE), VIEWS, run / "encoder.safetensors")
    return encoder.eval(), run


def representation(encoder: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return encoder.to(memory_format=torch.contiguous_format).eval()(images())


def test_the_file_loads_with_timm_alone(saved):
    encoder, run = saved
    file = run / "encoder.safetensors"
    with safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["headwise"])
    model: Any = timm.create_model(**about["timm"])
    if about["stem"] != "standard":
        stride = {"small": 1, "small-strided": 2}[about["stem"]]
        model.conv1 = nn.Conv2d(3, model.conv1.out_channels, 3, stride, padding=1, bias=False)
        model.maxpool = nn.Identity()
    model.load_state_dict(load_file(file))
    assert torch.equal(representation(model), representation(encoder))


def test_a_loaded_encoder_is_the_one_that_was_saved(saved):
    encoder, run = saved
    expected = representation(encoder)
    for path in (run, run / "encoder.safetensors", str(run)):
        loaded = load_encoder(path)
        assert not loaded.training
        assert torch.equal(representation(loaded), expected)
    assert expected.std(0).max() > 0


def test_timm_prepares_images_as_in_pretraining(saved):
    encoder = load_encoder(saved[1])
    found = resolve_model_data_config(encoder)
    assert found["input_size"] == (3, SIZE, SIZE)
    assert found["mean"] == VIEWS.mean
    assert found["std"] == VIEWS.std
    assert found["crop_pct"] == 1.0
    assert found["interpolation"] == "bilinear"
    # timm's own models of this name are left as they were.
    name = describe_encoder(saved[1] / "encoder.safetensors")["timm"]["model_name"]
    assert present(timm.get_pretrained_cfg(name)).mean != VIEWS.mean


def test_the_three_stems_differ_in_resolution(tmp_path):
    sides = {}
    for stem in ("standard", "small", "small-strided"):
        config = EncoderConfig(**TINY, stem=stem)
        path = tmp_path / f"{stem}.safetensors"
        save_encoder(build_encoder(config, SIZE, seed=0), resolve(config, SIZE), VIEWS, path)
        loaded: Any = load_encoder(path)
        sides[stem] = loaded.forward_features(images()).shape[-1]
    # Strides after the stem: 2 three times.
    assert sides == {"standard": 1, "small": 4, "small-strided": 2}


def test_a_missing_file_says_what_to_do(tmp_path):
    for path in (tmp_path, tmp_path / "encoder.safetensors", tmp_path / "no-run"):
        with pytest.raises(UserError, match="headwise pretrain --resume") as error:
            load_encoder(path)
        assert "\n" not in str(error.value)


def test_files_that_headwise_did_not_write_are_refused(tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    with pytest.raises(UserError, match="written by headwise"):
        load_encoder(foreign)
    save_file({"weight": torch.zeros(2)}, foreign, {"format": "pt"})
    with pytest.raises(UserError, match="written by headwise"):
        load_encoder(foreign)
    foreign.write_bytes(b"no safetensors at all")
    with pytest.raises(UserError, match="written by headwise") as error:
        load_encoder(foreign)
    assert "\n" not in str(error.value)


def test_an_interrupted_save_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    config = EncoderConfig(**TINY, stem="small")
    path = tmp_path / "encoder.safetensors"
    encoder = build_encoder(config, SIZE, seed=0)
    save_encoder(encoder, resolve(config, SIZE), VIEWS, path)
    before = path.read_bytes()

    def cut_short(file, content):
        with file.open("wb") as opened:
            opened.write(content[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", cut_short)
    with pytest.raises(OSError, match="no space"):
        save_encoder(build_encoder(config, SIZE, seed=1), resolve(config, SIZE), VIEWS, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def rewritten(path: Path, change: Any) -> None:
    """The file with its description changed, by one who knows how its digest is made."""
    tensors = load_file(path)
    with safe_open(path, "pt") as opened:
        about = json.loads(opened.metadata()["headwise"])
    change(about)
    about["sha256"] = digest(about, tensors)
    save_file(tensors, path, {"headwise": json.dumps(about)})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("checkpoint_path", "weights.pt", "unknown key 'checkpoint_path'"),
        ("pretrained_cfg", {"file": "weights.pt"}, "unknown key 'pretrained_cfg'"),
        ("pretrained", True, "pretrained cannot be True"),
        ("model_name", "local-dir:.", "must name a model of timm"),
        ("model_name", "hf-hub:timm/resnet18", "must name a model of timm"),
        ("layers", [1, 1, 1, "1"], "layers must be of type int"),
        ("layers", [2**40, 1, 1, 1], "more layers than it holds"),
        ("channels", [2**20, 2**20, 2**20, 2**20], "must hold the weights of the encoder"),
    ],
)
def test_a_file_chooses_an_architecture_and_nothing_else(tmp_path, monkeypatch, key, value, said):
    """timm unpickles the file of a `checkpoint_path`: nothing that a run holds is unpickled."""
    path = tmp_path / "encoder.safetensors"
    config = resolve(EncoderConfig(**TINY), SIZE)
    save_encoder(build_encoder(config, SIZE, seed=0), config, VIEWS, path)
    rewritten(path, lambda about: about["timm"].update({key: value}))
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Path("never made")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pickle, "load", lambda *a, **k: pytest.fail("unpickled"))
    with pytest.raises(UserError, match=re.escape(said)) as error:
        load_encoder(path)
    assert "\n" not in str(error.value)


def test_no_pickles_are_read():
    """Only workers unpickle, and what a process that they were forked from has sent."""
    source = Path(headwise.__file__).parent
    found = {
        (path.relative_to(source).as_posix(), line.strip())
        for path in source.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"allow_pickle=True|torch\.load\(|pickle\.load|weights_only=False", line)
    }
    assert found == {
        (
            "model/checkpoint.py",
            'return torch.load(path / _OLD_OPTIMIZER, weights_only=True, map_location="cpu")',
        ),
        (
            "encoders/weights.py",
            'found = torch.load(file, map_location="cpu", weights_only=True)',
        ),
        ("runtime/workers.py", "result, error = pickle.loads(content, buffers=buffers)"),
    }
