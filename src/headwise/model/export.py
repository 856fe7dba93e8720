"""Taking the encoder away: its weights under timm's own names, and what timm needs to load them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from headwise.augment import ResolvedAugment
from headwise.config import from_dict, to_dict
from headwise.data.config import DataConfig, Fit
from headwise.encoders.build import ResolvedEncoder, small_stem, timm_arguments
from headwise.errors import UserError
from headwise.files import Json, read_object, write_bytes
from headwise.model.own_files import trusted
from headwise.own_code import Handed, OwnCode
from headwise.runs.directory import Run, run_path

ENCODER_FILE, START_FILE = "encoder.safetensors", "start.safetensors"
"""In a run: the encoder that it made, and the one that it began with where it has start weights."""


@dataclass(frozen=True, kw_only=True)
class _TimmArguments:
    """The only arguments that a file can give `timm.create_model`, which would also unpickle a
    `checkpoint_path`, and download what is `pretrained` or named `hf-hub:`."""

    model_name: str
    pretrained: Literal[False]
    num_classes: Literal[0]
    layers: tuple[int, ...] | None = None
    channels: tuple[int, ...] | None = None
    img_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class _ImageInput:
    """The images that the encoder takes, and how they are made: `preparation.prepare` does it. The
    fields with one choice say what other programs must do."""

    size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: Fit = "crop"
    """How an image becomes a square (`DataConfig.fit`)."""
    resize_px: int | None = None
    """The square's size before it is resized to `size_px` (`DataConfig.resize`)."""
    crop: Literal["centre"] = "centre"
    """The part of an image that is not a square."""
    interpolation: Literal["bilinear"] = "bilinear"
    antialias: Literal[True] = True
    channels: Literal["RGB"] = "RGB"


@dataclass(frozen=True, kw_only=True)
class _Description:
    """All that an encoder's file says of itself."""

    timm: _TimmArguments | None = None
    """None: the encoder is own code."""
    own: OwnCode | None = None
    stem: Literal["standard", "small", "small-strided"]
    image: _ImageInput
    sha256: str | None = None


def save_encoder(
    encoder: nn.Module,
    config: ResolvedEncoder,
    augment: ResolvedAugment,
    path: Path,
    data: DataConfig | None = None,
) -> None:
    """Write the encoder alone (`encoder_bytes`)."""
    write_bytes(path, encoder_bytes(encoder, config, augment, data))


def encoder_bytes(
    encoder: nn.Module,
    config: ResolvedEncoder,
    augment: ResolvedAugment,
    data: DataConfig | None = None,
) -> bytes:
    """The content of an encoder's file. Its metadata hold, as JSON under `headwise`: the arguments
    of `timm.create_model`, the stem, how its images are made, and the SHA-256 of all this and the
    weights. Equal weights give equal bytes. `data`: how images were read, by default as they are.
    """
    read = data or DataConfig()
    image = _ImageInput(
        size_px=augment.size,
        mean=augment.mean,
        std=augment.std,
        fit=read.fit or "crop",
        resize_px=read.resize,
    )
    about: Json = {
        **_maker(config, augment.size),
        "stem": config.stem,
        "image": to_dict(image),
    }
    tensors = {name: value.contiguous() for name, value in encoder.state_dict().items()}
    about["sha256"] = digest(about, tensors)
    metadata = {"headwise": json.dumps(about), "format": "pt"}
    return _sorted_metadata(to_bytes(tensors, metadata))


def _maker(config: ResolvedEncoder, size: int) -> Json:
    """What makes the encoder: timm, or own code, which the file names and does not hold."""
    if config.own is not None:
        return {"own": to_dict(config.own)}
    return {"timm": timm_arguments(config, size)}


def load_encoder(run: str | Path | Run) -> nn.Module:
    """The encoder of a finished run (its directory, or its encoder.safetensors), ready for use.

    A timm model in evaluation mode, from images `[n 3 s s]` to `h` `[n p]`. Images are floats in
    [0, 1], normalised, as `prepare` makes them: its `pretrained_cfg` says how, for timm too. An own
    encoder needs a run from `open_run`, which has its code.

    Raises `UserError` where there is no such file.
    """
    path = encoder_file(run)
    about = describe_encoder(path)
    tensors = load_file(path)
    if about.get("sha256", digest(about, tensors)) != digest(about, tensors):
        raise UserError(f"{path} is damaged: it is not what was saved{_make_again(path)}")
    own = None
    if "own" in about:
        handed = run.handed if isinstance(run, Run) else Handed()
        recorded = from_dict(OwnCode, about["own"], str(path))
        own = trusted(recorded, "encoder", handed, path.parent)
    try:
        if own is None:
            with torch.device("meta"):  # sizes that the file only claims take no memory
                _made(about, len(tensors)).load_state_dict(tensors, assign=True)
        model = _made(about, len(tensors)) if own is None else own.built("encoder")
        model.load_state_dict(tensors)
    except UserError:
        raise
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise UserError(
            f"{path} must hold the weights of the encoder that it describes; "
            f"{str(error).splitlines()[0]}{_make_again(path)}"
        ) from None
    say_images(model, about["image"])
    return model.eval()


def say_images(model: Any, image: Json) -> None:
    """Have an encoder say, for `prepare` and for timm, which images it takes: the `image` of
    `describe_encoder`."""
    model.pretrained_cfg = {
        **(vars(model).get("pretrained_cfg") or {}),
        "input_size": (3, image["size_px"], image["size_px"]),
        "mean": tuple(image["mean"]),
        "std": tuple(image["std"]),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "headwise": {**image, "mean": tuple(image["mean"]), "std": tuple(image["std"])},
    }


def encoder_file(run: str | Path | Run) -> Path:
    """Return where the encoder of a run is, or the path itself if that is no directory."""
    path = run_path(run)
    return path / ENCODER_FILE if path.is_dir() else path


def _made(about: Json, most_layers: int) -> Any:
    """The described model, with weights of no meaning. Raises `ValueError` for too many layers."""
    import timm

    if sum(about["timm"].get("layers") or ()) > most_layers:
        raise ValueError("it describes more layers than it holds")
    model = timm.create_model(**about["timm"])
    if about["stem"].startswith("small"):
        small_stem(model, stride=1 if about["stem"] == "small" else 2)
    return model


def describe_encoder(path: Path) -> Json:
    """The metadata that `save_encoder` wrote.

    Raises `UserError` if the file is missing or damaged, if it says what `save_encoder` does not
    write, or if it lies in a finished run that made another one.
    """
    import timm

    if not path.is_file():
        raise UserError(
            f"an encoder must be a finished run or its {ENCODER_FILE}; got {path}, "
            f"which does not exist{_make_again(path)}"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        about = json.loads(metadata.get("headwise", "{}"))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise UserError(f"{path} must be written by headwise; {error}") from error
    if not isinstance(about, dict) or not {"stem", "image"} <= about.keys():
        raise UserError(f"{path} must be written by headwise; it has no description of the encoder")
    described = from_dict(_Description, about, str(path))
    if (described.timm is None) == (described.own is None):
        raise UserError(f"{path} must be written by headwise; it has no description of the encoder")
    if described.timm is not None and not timm.is_model(described.timm.model_name):
        raise UserError(
            f"{path} must name a model of timm; got {described.timm.model_name!r}; "
            "it needs the version of timm that it was made with"
        )
    if made_by_another(path):
        raise UserError(f"{path} is not the encoder that this run made{_make_again(path)}")
    return about


def made_by_another(path: Path) -> bool:
    """Whether an encoder's file is not the one that the run around it has finished with."""
    done = path.with_name("DONE")
    try:
        expected = read_object(done).get("encoder_sha256") if done.is_file() else None
    except UserError:  # version 0.1 wrote an empty file
        return False
    started = path.name == START_FILE
    return not started and expected is not None and expected != file_digest(path)


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_again(path: Path) -> str:
    """What to do about an encoder's file that is missing or wrong, if it is in a run."""
    if not path.with_name("config.json").is_file():
        return "; a run that stopped makes it with: headwise pretrain --resume RUN"
    return f"; make it with: headwise pretrain --resume {path.parent}"


def digest(about: Json, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the description, and of every tensor's name, type, shape and bytes."""
    described = {key: value for key, value in about.items() if key != "sha256"}
    found = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _sorted_metadata(content: bytes) -> bytes:
    """The same file with its metadata in the order of their names: safetensors has none."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[start:]
