"""Weights that an encoder starts from: tensors from a file, fitted to the encoder."""

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from headwise.data.reading import line_of, one_line
from headwise.encoders.build import ResolvedEncoder, build_encoder, timm_arguments
from headwise.errors import UserError

log = logging.getLogger("headwise")

Tensors = dict[str, Tensor]
"""By name, as in a state dict."""

_CLASSIFIERS = ("fc", "head", "head_dist", "classifier", "last_linear")
_COUNTER = "num_batches_tracked"
"""BatchNorm's, which no evaluation reads; old files lack it."""
_SHOWN = 3
"""Names in a message at most."""


def read_tensors(file: Path) -> Tensors:
    """The tensors of a file by name; of a .pth the first of the tables that training scripts nest
    them in. Nothing in it is executed."""
    with one_line(f"{file} must hold tensors by name, as .safetensors or as a .pth without code"):
        if file.suffix == ".safetensors":
            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
        while not any(isinstance(value, Tensor) for value in found.values()):
            found = next(value for value in found.values() if isinstance(value, Mapping))
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def inner(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[Tensors, list[str]]:
    """The tensors under the prefix with which most of the `wanted` are there, without it, and the
    names of the others."""
    first = next(iter(wanted))
    prefixes = [name.removesuffix(first) for name in tensors if name.endswith(first)] or [""]
    prefix = min(prefixes, key=lambda p: sum(p + name not in tensors for name in wanted))
    found = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return found, [name for name in tensors if not name.startswith(prefix)]


def fitted(
    config: ResolvedEncoder, size: int, tensors: Mapping[str, Tensor], source: str
) -> Tensors:
    """The weights as the encoder of `config` has them: every one of its own, float32. What timm
    adapts is adapted (names of other repositories, position tables of another size); a classifier
    and what is beside the encoder are left out, which is said.

    Raises `UserError` with counts and names where they do not match.
    """
    model = build_encoder(config, size, seed=0)
    found, beside = inner(tensors, wanted := model.state_dict())
    classifier = [n for n in found if n not in wanted and n.partition(".")[0] in _CLASSIFIERS]
    found = {name: value for name, value in found.items() if name not in classifier}
    try:
        if config.stem != "standard":
            model.load_state_dict(found)
        else:
            model = _loaded_by_timm(config, size, found)
    except Exception as error:  # timm converts names and shapes, and raises what it likes
        raise UserError(_mismatch(config, found, wanted, source, error)) from None
    if left := classifier + beside:
        say_once(f"{source}: not of the encoder and left out: {shown(left)}")
    fit = model.state_dict()
    if bad := [name for name, value in fit.items() if not value.isfinite().all()]:
        raise UserError(
            f"encoder.weights must be finite; {source} has NaN or infinity in {shown(bad)}"
        )
    return fit


@functools.cache
def say_once(line: str) -> None:
    """Weights are opened several times by a command."""
    log.info("%s", line)


def _loaded_by_timm(config: ResolvedEncoder, size: int, tensors: Tensors) -> Any:
    """A model that timm makes with these weights, as it does with its own."""
    import timm

    overlay = {"state_dict": dict(tensors), "num_classes": 0, "label_offset": 0}
    arguments = timm_arguments(config, size) | {"pretrained": True}
    return timm.create_model(**arguments, pretrained_cfg_overlay=overlay)


def _mismatch(
    config: ResolvedEncoder, found: Tensors, wanted: Tensors, source: str, error: Exception
) -> str:
    missing = [n for n in wanted if n not in found and not n.endswith(_COUNTER)]
    more = [name for name in found if name not in wanted]
    shapes = [
        f"{name} {tuple(found[name].shape)} for {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    said = {"missing": missing, "not known": more, "of another shape": shapes}
    counts = [f"{len(names):,} {what} ({shown(names)})" for what, names in said.items() if names]
    return (
        f"encoder.weights must be those of {config.name}, which has {len(wanted):,} tensors; in "
        f"{source} are {', '.join(counts) or line_of(error)}; give the encoder that they are of: "
        "--encoder"
    )


def shown(names: list[str]) -> str:
    """The first of several names, for a message."""
    return ", ".join(names[:_SHOWN]) + ", …" * (len(names) > _SHOWN)
