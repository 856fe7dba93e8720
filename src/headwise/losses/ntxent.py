"""NT-Xent, and the choice between its three computations."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from headwise.errors import UserError, nearest
from headwise.losses.dense import (
    both_views,
    check_temperature,
    contrastive_accuracy,
    contrastive_logits,
    projections,
)
from headwise.losses.tiled import tiled_nt_xent

Method = Literal["auto", "dense", "tiled", "fused"]

# Up to this many images the whole matrix is as fast as tiles on a CPU, and takes a megabyte.
_DENSE_IMAGES = 256


class NtXent(NamedTuple):
    """The loss, and the contrastive accuracy, which has no gradient."""

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]


def nt_xent(
    z0: Float[Tensor, "n d"],
    z1: Float[Tensor, "n d"],
    temperature: float | Float[Tensor, ""] = 0.5,
    method: Method = "auto",
    *,
    normalised: bool = True,
    mates: Int64[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Return NT-Xent (SimCLR, arXiv 2002.05709, Algorithm 1): the cross-entropy of picking the twin
    of a projection among the other `2n − 1`, as the mean over all `2n` projections.

    This is the paper's mean; the authors' code gives twice this value. If all rows are equal, the
    loss is log(2n − 1). It is computed in float32 (float64 for float64 input) and finite at any
    positive temperature. A `temperature` that is a tensor gets its gradient too. If not
    `normalised`, similarity is the dot product in place of the cosine (Table 5). `method` changes
    time and memory, not the value: `dense` holds matrices of `[2n 2n]`; `tiled` and `fused` (a
    Triton kernel, or `tiled` if that cannot run) need memory linear in `n` and are differentiable
    once; `auto` takes the fastest. Raises `UserError` for another method, a temperature that
    is not one positive number, and views of different shapes.
    """
    return nt_xent_and_accuracy(
        z0, z1, temperature, method, normalised=normalised, mates=mates
    ).loss


def nt_xent_and_accuracy(
    z0: Float[Tensor, "n d"],
    z1: Float[Tensor, "n d"],
    temperature: float | Float[Tensor, ""] = 0.5,
    method: Method = "auto",
    *,
    normalised: bool = True,
    mates: Int64[Tensor, " n"] | None = None,
) -> NtXent:
    """Return `nt_xent` and `contrastive_accuracy` from one pass."""
    check_temperature(temperature)
    method = chosen_method(method, len(z0), z0.device.type)
    match method:
        case "dense":
            logits, positives = contrastive_logits(
                z0, z1, temperature, normalised=normalised, mates=mates
            )
            loss = F.cross_entropy(logits, positives)
            return NtXent(loss, contrastive_accuracy(logits.detach(), positives))
        case "tiled" | "fused":
            with torch.autocast(z0.device.type, enabled=False):
                z = projections(z0, z1, normalised=normalised)
                compute: _Compute = tiled_nt_xent
                if method == "fused":
                    compute = _fused(z, half=z0.dtype.itemsize == 2)
                if mates is not None:
                    compute = partial(compute, mates=both_views(mates, len(z0)))
                return NtXent(*_WithGradient.apply(compute, z, temperature))
    choices = get_args(Method)
    raise UserError(f"nt_xent: method cannot be {method!r}: {nearest(method, choices)}")


def chosen_method(method: Method, n: int, device: str) -> Method:
    """Return the method for the loss of `n` images, with `auto` resolved. `fused` still becomes
    `tiled` if the kernel cannot run."""
    if n == 1:
        return "dense"  # the other methods need negatives
    if method == "auto":
        return "dense" if device == "cpu" and n <= _DENSE_IMAGES else "fused"
    return method


_Compute = Callable[..., tuple[Tensor, Tensor, Tensor | None]]


def _fused(z: Float[Tensor, "m d"], half: bool) -> _Compute:
    """Return the Triton kernel if it can run, else `tiled_nt_xent`."""
    try:
        from headwise.losses.fused import can_fuse, fused_nt_xent
    except ImportError:
        return tiled_nt_xent
    return partial(fused_nt_xent, half=half) if can_fuse(z) else tiled_nt_xent


class _WithGradient(torch.autograd.Function):
    """Computes the gradient together with the loss, from the same tiles. Backward scales it."""

    @staticmethod
    def forward(ctx: Any, compute: _Compute, z: Tensor, temperature: float | Tensor) -> Any:
        learnable = isinstance(temperature, Tensor)
        value = temperature.item() if learnable else temperature
        loss, accuracy, gradient = compute(z, value, any(ctx.needs_input_grad))
        slope = None
        if gradient is not None and learnable:
            # The loss depends on z·zᵀ/τ alone: scaling τ by c is scaling every z by c^(−1/2).
            slope = -(z * gradient).sum(dtype=torch.double) / (2 * value)
            slope = slope.to(temperature)
        ctx.save_for_backward(gradient, slope)
        ctx.mark_non_differentiable(accuracy)
        return loss, accuracy

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise UserError(
                'nt_xent by method "tiled" or "fused" can be differentiated only once; '
                'got create_graph=True; use method="dense"'
            )
        gradient, slope = ctx.saved_tensors
        return None, slopes[0] * gradient, None if slope is None else slopes[0].to(slope) * slope
