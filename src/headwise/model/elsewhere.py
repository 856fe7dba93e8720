"""Encoders that headwise did not train: timm's by name, files of weights, folders of the hub."""

import inspect
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from safetensors import safe_open
from torch import Tensor, nn

from headwise import rng
from headwise.augment import ResolvedAugment, whole_images
from headwise.data import DataConfig
from headwise.data.reading import line_of, one_line
from headwise.encoders.weights import inner, read_tensors, shown
from headwise.errors import UserError, nearest
from headwise.files import Json, read_object
from headwise.model.export import describe_encoder, encoder_file, load_encoder

log = logging.getLogger("headwise")

TIMM, HUB, FOLDER = "timm:", "hf-hub:", "local-dir:"
_HUB_FILES = "config.json", "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class GivenEncoder:
    """An encoder from anywhere, in evaluation mode, and the images that it takes."""

    encoder: nn.Module
    """From `[n 3 s s]` to `h` `[n p]`."""
    images: ResolvedAugment
    """Size and normalisation; there are no operators."""
    reading: DataConfig
    """How its images become squares, where its file says so."""
    about: Json
    """What it is, for config.json."""


@dataclass(frozen=True, kw_only=True)
class EncoderChoice:
    """How an encoder from elsewhere is made. What it does not need, it refuses."""

    architecture: str | None = None
    """The timm model whose weights a file holds, if the file does not say."""
    pretrained: bool = True
    """Whether timm's own weights are loaded; without them new ones are drawn."""
    size: int | None = None
    """Resize images to so many pixels. None: the size that the weights were trained with."""
    seed: int = 0
    """Of new weights."""


def open_encoder(spec: str | Path, choice: EncoderChoice) -> GivenEncoder:
    """Open `timm:NAME`, a run or its encoder.safetensors, a file of weights (.safetensors, .pth),
    a folder of the hub (config.json and model.safetensors), or `hf-hub:NAME`, one on the hub.

    Nothing in a file is executed. Raises `UserError` for an unknown name, weights that cannot be
    had or do not fit, and a size that the encoder cannot take.
    """
    name, path = str(spec), Path(spec)
    if not name.startswith(TIMM) and not choice.pretrained:
        raise UserError(f"--no-pretrained has an effect only with --encoder {TIMM}NAME; got {name}")
    hub = name.startswith((HUB, FOLDER)) or all((path / file).is_file() for file in _HUB_FILES[1:])
    if choice.architecture is not None and (name.startswith(TIMM) or hub or path.is_dir()):
        raise UserError(
            f"--architecture has an effect only with a file of weights; got --encoder {name}"
        )
    if name.startswith(TIMM):
        return _given(_from_timm(name.removeprefix(TIMM), choice), name, choice)
    if hub:
        return _given(from_hub(name), name, choice)
    file = encoder_file(path)
    if not file.is_file():
        raise UserError(
            f"--encoder must be {TIMM}NAME, a file of weights, a finished run or a folder with "
            f"{' and '.join(_HUB_FILES)}; got {name}"
        )
    if choice.architecture is None and is_ours(file):
        image = describe_encoder(file)["image"]
        reading = DataConfig(fit=image.get("fit"), resize=image.get("resize_px"))
        return _given(load_encoder(file), name, choice, reading)
    if choice.architecture is None:
        raise UserError(
            f"{file} does not say which encoder its weights are of; "
            "name the timm model: --architecture resnet50"
        )
    model = _made(choice.architecture, "--architecture")
    _load(model, read_tensors(file), file)
    return _given(model, name, choice)


def _given(
    model: nn.Module, spec: str, choice: EncoderChoice, reading: DataConfig | None = None
) -> GivenEncoder:
    """With the images of its `pretrained_cfg`. Raises `UserError` if it cannot take them."""
    from timm.data import resolve_model_data_config

    cfg: Json = resolve_model_data_config(model)
    own = max(cfg["input_size"][1:])
    size = choice.size or own
    model.eval()
    try:
        with torch.no_grad():
            h = model(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"encoder {spec} must take RGB images of {size} px; {line_of(error)}; "
            f"its own size is {own} px: --size {own}"
        ) from None
    if h.dim() != 2:
        raise UserError(f"encoder {spec} must give one row an image; got {tuple(h.shape[1:])}")
    mean, std = tuple(cfg["mean"]), tuple(cfg["std"])
    about = {"encoder": spec, "model": _name_of(model), "pretrained": choice.pretrained}
    about |= {"size_px": size, "mean": list(mean), "std": list(std), "p": h.shape[1]}
    return GivenEncoder(
        encoder=model,
        images=whole_images(size, mean, std),
        reading=reading or DataConfig(),
        about=about,
    )


def _name_of(model: Any) -> str:
    return str(model.pretrained_cfg.get("architecture"))


def _made(name: str, flag: str, **arguments: Any) -> nn.Module:
    """A timm model without its classifier. Raises `UserError` for an unknown name."""
    import timm

    if not timm.is_model(name):
        raise UserError(
            f"{flag} must be a timm model; got {name!r}; {nearest(name, timm.list_models())}"
        )
    # Whatever library fetches the weights raises errors of its own.
    with one_line(f"timm cannot make {name}"):
        return timm.create_model(name, num_classes=0, **arguments)


def _from_timm(name: str, choice: EncoderChoice) -> nn.Module:
    if not choice.pretrained:
        with rng.seeded(choice.seed, "encoder"):
            return _made(name, f"--encoder {TIMM}")
    return from_timm(name, f"--encoder {TIMM}", "--no-pretrained")


def from_timm(name: str, flag: str, otherwise: str) -> nn.Module:
    """The model with timm's own weights, from its cache or the network. `otherwise`: the flag for
    new weights."""
    try:
        with _no_waiting():
            return _made(name, flag, pretrained=True)
    except UserError as error:
        if error.__cause__ is None:  # the name
            raise
        raise UserError(
            f"the weights of {TIMM}{name} are neither in timm's cache nor can they be loaded; "
            f"{line_of(error.__cause__)}; connect to the network, name a model that has weights, "
            f"or take new weights: {otherwise}"
        ) from None


def from_hub(spec: str) -> nn.Module:
    """The model in a folder of the hub, `local-dir:FOLDER` or its path, or `hf-hub:NAME` (or
    `NAME@REVISION`), which is fetched into the hub's cache. Nothing in it is executed."""
    if not spec.startswith(HUB):
        return _from_hub_folder(Path(spec.removeprefix(FOLDER)))
    from huggingface_hub import hf_hub_download

    name, _, revision = spec.removeprefix(HUB).partition("@")
    with _no_waiting(), one_line(f"{spec} must have {' and '.join(_HUB_FILES)} on the hub"):
        files = [hf_hub_download(name, file, revision=revision or None) for file in _HUB_FILES]
    return _from_hub_folder(Path(files[0]).parent)


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Within the block the hub's library reads its cache alone if the hub cannot be reached: it
    would try for most of a minute, with a warning each time."""
    from huggingface_hub import constants

    proxies = {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"} & os.environ.keys()
    host = urlsplit(constants.ENDPOINT)
    before = constants.HF_HUB_OFFLINE
    if not proxies:
        try:
            socket.create_connection((host.hostname or "", host.port or 443), timeout=5).close()
        except OSError:
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _from_hub_folder(folder: Path) -> nn.Module:
    """The model that timm saved with `save_for_hf`."""
    import timm

    if missing := [file for file in _HUB_FILES if not (folder / file).is_file()]:
        raise UserError(
            f"{folder} must be a folder of the hub, with {' and '.join(_HUB_FILES)}; "
            f"it has no {missing[0]}"
        )
    about = read_object(folder / "config.json")
    arguments, cfg = about.get("model_args") or {}, about.get("pretrained_cfg") or {}
    # timm's own arguments could name a pickle, or fetch something.
    forbidden = set(arguments) & {*inspect.signature(timm.create_model).parameters, "num_classes"}
    if forbidden or not isinstance(cfg, dict) or "architecture" not in about:
        raise UserError(
            f"{folder / 'config.json'} must name a timm model under `architecture` and only its "
            f"own settings under `model_args`; got {', '.join(sorted(forbidden)) or 'others'}"
        )
    model: Any = _made(
        str(about["architecture"]), f"{folder / 'config.json'}: architecture", **arguments
    )
    known = ("input_size", "mean", "std")
    model.pretrained_cfg |= {name: tuple(cfg[name]) for name in known if name in cfg}
    file = folder / _HUB_FILES[1]
    _load(model, read_tensors(file), file)
    return model


def is_ours(file: Path) -> bool:
    if file.suffix != ".safetensors":
        return False
    with one_line(f"{file} must be a safetensors file"), safe_open(file, "pt") as opened:
        return "headwise" in (opened.metadata() or {})


def _load(model: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Load those of `tensors` that the model has, under the prefix that all of them share. Raises
    `UserError` where one is missing or has another shape."""
    wanted = model.state_dict()
    found, beside = inner(tensors, wanted)
    if missing := [name for name in wanted if name not in found]:
        raise UserError(
            f"{file} must hold the weights of {_name_of(model)}; {len(missing):,} of "
            f"{len(wanted):,} are missing, first {missing[0]!r}; it has "
            f"{nearest(missing[0], tensors)}"
        )
    for name, value in wanted.items():
        if found[name].shape != value.shape:
            raise UserError(
                f"{file} must hold the weights of {_name_of(model)}; {name} must have the shape "
                f"{tuple(value.shape)}; it has {tuple(found[name].shape)}"
            )
    model.load_state_dict({name: found[name] for name in wanted})
    if left := [*(name for name in found if name not in wanted), *beside]:
        log.info("%s: not of the encoder: %s", file, shown(left))
