"""Taking the encoder away: its weights under timm's own names, and what timm needs to load them."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from headwise.augment import ResolvedAugment
from headwise.encoders.build import ResolvedEncoder, small_stem, timm_arguments
from headwise.errors import UserError
from headwise.files import Json, write_atomically

ENCODER_FILE = "encoder.safetensors"


def save_encoder(
    encoder: nn.Module, config: ResolvedEncoder, augment: ResolvedAugment, path: Path
) -> None:
    """Write the encoder alone. The file's metadata hold, as JSON under `headwise`: the arguments
    of `timm.create_model`, the stem, and the size, mean and std of its images."""
    about = {
        "timm": timm_arguments(config, augment.size),
        "stem": config.stem,
        "image": {"size_px": augment.size, "mean": augment.mean, "std": augment.std},
    }
    tensors = {name: value.contiguous() for name, value in encoder.state_dict().items()}
    metadata = {"headwise": json.dumps(about), "format": "pt"}
    content = to_bytes(tensors, metadata)
    write_atomically(path, lambda temporary: _write(temporary, content))


def load_encoder(run: str | Path) -> nn.Module:
    """The encoder of a finished run (its directory, or its encoder.safetensors), ready for use.

    A timm model in evaluation mode, from images `[n 3 s s]` to `h` `[n p]`. Images are floats in
    [0, 1], normalised: its `pretrained_cfg` holds their size, mean and std, so that
    `timm.data.create_transform(**timm.data.resolve_model_data_config(encoder))` prepares them.

    Raises `UserError` where there is no such file.
    """
    import timm

    path = Path(run)
    path = path / ENCODER_FILE if path.is_dir() else path
    about = describe_encoder(path)
    model: Any = timm.create_model(**about["timm"])
    if about["stem"].startswith("small"):
        small_stem(model, stride=1 if about["stem"] == "small" else 2)
    model.load_state_dict(load_file(path))
    image = about["image"]
    model.pretrained_cfg |= {
        "input_size": (3, image["size_px"], image["size_px"]),
        "mean": tuple(image["mean"]),
        "std": tuple(image["std"]),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
    }
    return model.eval()


def describe_encoder(path: Path) -> Json:
    """The metadata that `save_encoder` wrote."""
    if not path.is_file():
        raise UserError(
            f"an encoder must be a finished run or its {ENCODER_FILE}; got {path}, "
            "which does not exist; finish the run with: headwise pretrain --resume RUN"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{path} must be written by headwise; {error}") from error
    if "headwise" not in metadata:
        raise UserError(f"{path} must be written by headwise; it has no description of the encoder")
    return json.loads(metadata["headwise"])


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
