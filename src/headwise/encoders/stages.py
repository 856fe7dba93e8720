"""The taps inside an encoder: the outputs of its stages."""

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headwise.errors import UserError

# timm lists these modules among a model's stages, although they come before the stages.
_STEMS = ("act1", "bn1", "stem")


def stage_names(encoder: nn.Module) -> tuple[str, ...]:
    """Return the taps in the encoder, `f1`, `f2`, … after each stage that timm lists (after each
    block, if the model has no stages). Empty if timm lists none."""
    return tuple(_stages(encoder))


@contextlib.contextmanager
def watched_stages(
    encoder: nn.Module, taps: Collection[str]
) -> Iterator[dict[str, Float[Tensor, "n _"]]]:
    """Within the block, a forward pass writes the output of each stage in `taps`, as the mean over
    positions or tokens in float32, to the yielded dictionary. Hooks only read the outputs, so the
    encoder's result is bit-identical."""
    values: dict[str, Tensor] = {}
    with contextlib.ExitStack() as hooks:
        for tap, (module, channels) in _stages(encoder).items():
            if tap in taps:

                def keep(
                    _: nn.Module, __: Any, out: Any, tap: str = tap, c: int = channels
                ) -> None:
                    values[tap] = _mean_over_positions(encoder, tap, out, c)

                hooks.callback(encoder.get_submodule(module).register_forward_hook(keep).remove)
        yield values


def _stages(encoder: nn.Module) -> dict[str, tuple[str, int]]:
    """Return the module name and the number of channels of each stage, by tap."""
    listed: Any = getattr(encoder, "feature_info", [])  # some timm models have none
    modules = dict(encoder.named_modules())
    if any(stage["module"] not in modules for stage in listed):  # some names are not modules
        return {}
    stages = [stage for stage in listed if stage["module"].split(".")[0] not in _STEMS]
    return {f"f{i}": (stage["module"], stage["num_chs"]) for i, stage in enumerate(stages, 1)}


def _mean_over_positions(
    encoder: nn.Module, tap: str, output: Any, channels: int
) -> Float[Tensor, "n c"]:
    shape = tuple(output.shape) if isinstance(output, Tensor) else ()
    # Tokens have their channels last. timm marks models whose maps do with `output_fmt`.
    channels_last = len(shape) == 3 or getattr(encoder, "output_fmt", "NCHW") == "NHWC"
    axis = len(shape) - 1 if channels_last else 1
    if len(shape) not in (3, 4) or shape[axis] != channels:
        raise UserError(
            f"--taps {tap} needs a stage whose output is a map of {channels} channels or tokens of "
            f"that size; got {shape or type(output).__name__}; leave this tap out"
        )
    positions = [dim for dim in range(1, len(shape)) if dim != axis]
    return output.mean(positions, dtype=torch.float32)
