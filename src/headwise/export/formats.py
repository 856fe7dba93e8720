"""The files of an exported encoder, and the lines that load each of them."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from headwise.errors import UserError
from headwise.files import Json, write_bytes, write_json

Target = Literal["timm", "torch", "onnx"]
INPUT, OUTPUT = "images", "h"
HERE = "DIR"
"""Stands in the lines of `loading` for the folder."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An encoder, and how its file describes it."""

    encoder: nn.Module
    """In evaluation mode, on the CPU."""
    about: Json
    """The metadata of encoder.safetensors."""
    size: int
    """Of its images, in pixels."""
    p: int
    """Size of h."""

    @property
    def small_stem(self) -> bool:
        """Whether timm alone cannot make it: it has no argument for this stem."""
        return self.about["stem"] != "standard"

    @property
    def model_args(self) -> Json:
        """The arguments of its timm model beside the name."""
        apart = ("model_name", "pretrained", "num_classes")
        return {name: v for name, v in self.about["timm"].items() if name not in apart}


def check_target(to: Target, about: Json) -> None:
    """Raise `UserError` where this encoder cannot be exported so, or a package is missing."""
    if to == "timm" and "timm" not in about:
        raise UserError(
            "--to timm needs a timm model; the run has an own encoder, of which timm has no code; "
            "give --to torch or --to onnx"
        )
    names = ("onnx", "onnxruntime", "onnxscript")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if to == "onnx" and missing:
        raise UserError(
            f"--to onnx needs the package {missing[0]}, which is not installed; "
            "pip install 'headwise[onnx]'"
        )


def write_files(to: Target, exported: Exported, images: Float[Tensor, "n 3 s s"], at: Path) -> None:
    """Write the encoder's files into a folder. `images`: an example, of two at least."""
    match to:
        case "timm":
            _write_timm(exported, at)
        case "torch":
            program = torch.export.export(
                exported.encoder, (images[:2],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
            )
            torch.export.save(program, at / "encoder.pt2")
        case "onnx":
            _write_onnx(exported, images[:2], at / "encoder.onnx")


def loading(to: Target, exported: Exported) -> str:
    """Lines that make `encoder`, from images to h, of the files in `DIR`; of packages they need
    only those that they import."""
    match to:
        case "torch":
            return f'import torch\n\nencoder = torch.export.load("{HERE}/encoder.pt2").module()'
        case "onnx":
            return (
                "import onnxruntime\n\n"
                f'session = onnxruntime.InferenceSession("{HERE}/encoder.onnx")\n'
                f'encoder = lambda images: session.run(["{OUTPUT}"], {{"{INPUT}": images}})[0]'
            )
        case "timm" if not exported.small_stem:
            return (
                "import timm\n\n"
                f'encoder = timm.create_model("local-dir:{HERE}", pretrained=True).eval()'
            )
        case "timm":
            return _small_stem_lines(exported)


def preparation(exported: Exported) -> str:
    """What a picture goes through before the encoder, in words."""
    image = exported.about["image"]
    words = [f"the central square of the RGB image, resized to {exported.size} px (bilinear)"]
    if image.get("fit", "crop") != "crop":
        words = [f"the RGB image, made a square by fit {image['fit']}, {exported.size} px"]
    mean, std = (", ".join(f"{value:.6g}" for value in image[name]) for name in ("mean", "std"))
    words += ["divided by 255", f"mean ({mean}) subtracted", f"divided by ({std})"]
    return "; ".join(words)


def _write_timm(exported: Exported, at: Path) -> None:
    """The folder that timm reads as `local-dir:` and `hf-hub:`."""
    model: Any = exported.encoder
    cfg = {k: v for k, v in model.pretrained_cfg.items() if k in ("first_conv", "classifier")}
    image = exported.about["image"]
    config = {
        "architecture": exported.about["timm"]["model_name"],
        "num_classes": 0,
        "num_features": exported.p,
        "model_args": exported.model_args,
        "pretrained_cfg": {
            "tag": "headwise",
            "custom_load": False,
            "input_size": [3, exported.size, exported.size],
            "fixed_input_size": "img_size" in exported.model_args,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(image["mean"]),
            "std": list(image["std"]),
            "num_classes": 0,
            **cfg,
        },
    }
    write_json(at / "config.json", config)
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    write_bytes(at / "model.safetensors", to_bytes(tensors, {"format": "pt"}))


def _write_onnx(exported: Exported, images: Float[Tensor, "2 3 s s"], file: Path) -> None:
    program = torch.onnx.export(
        exported.encoder,
        (images,),
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: "batch"},),
    )
    assert program is not None, "dynamo gives a program"
    about = {"preprocessing": preparation(exported), "image": json.dumps(exported.about["image"])}
    program.model.metadata_props.update(about)
    program.save(file, external_data=False)


def _small_stem_lines(exported: Exported) -> str:
    stride = 1 if exported.about["stem"] == "small" else 2
    more = "".join(f", {name}={value!r}" for name, value in exported.model_args.items())
    conv: Any = exported.encoder
    return f"""import timm, torch
from safetensors.torch import load_file

encoder = timm.create_model({exported.about["timm"]["model_name"]!r}, num_classes=0{more})
encoder.conv1 = torch.nn.Conv2d(3, {conv.conv1.out_channels}, 3, {stride}, 1, bias=False)
encoder.maxpool = torch.nn.Identity()
encoder.load_state_dict(load_file("{HERE}/model.safetensors"))
encoder.eval()"""
