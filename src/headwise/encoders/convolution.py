"""Convolutions for bfloat16 on CPUs, where the library's own are far from the hardware's limit.

With few pixels an image, torch's bfloat16 weight gradient (oneDNN 3.x, AMX) reaches a tenth of the
matrix unit's speed. The same sums as one matrix product over unfolded patches do not. Where each
way is faster was measured; docs/performance.md has the figures.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import BFloat16
from torch import Tensor, nn

# Up to so many output pixels an image, a product over unfolded patches is faster than the library.
_UNFOLD_WEIGHT_GRADIENT_PX = 64
_UNFOLD_ALL_PX = 16


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, faster under bfloat16 autocast on the CPU; elsewhere the same to the bit."""

    def forward(self, input: Tensor) -> Tensor:
        reduced = (
            input.device.type == "cpu"
            and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16
        )
        if not reduced:
            return super().forward(input)
        # The gradient of a cast is a cast: the weight's arrives in float32, as under autocast.
        result: Any = _Convolution.apply(
            input.bfloat16(), self.weight.bfloat16(), self.stride[0], int(self.padding[0])
        )
        return result


def replace_convolutions(model: nn.Module) -> None:
    """Make every plain square convolution inside `model` a `Conv2d`; names and parameters stay."""
    for module in model.modules():
        if type(module) is nn.Conv2d and _plain(module):
            module.__class__ = Conv2d


def _plain(conv: nn.Conv2d) -> bool:
    """Whether `_Convolution` computes it: square in everything, one group, no bias."""
    return (
        conv.groups == 1
        and conv.bias is None
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and all(a == b for a, b in (conv.kernel_size, conv.stride, conv.padding))
    )


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        side = weight.shape[-1]
        height, width = ((size + 2 * padding - side) // stride + 1 for size in x.shape[2:])
        if side > 1 and height * width <= _UNFOLD_ALL_PX:
            flat = unfold(x, side, stride, padding) @ _rows(weight).T
            return flat.view(len(x), height, width, len(weight)).permute(0, 3, 1, 2)
        return F.conv2d(x, weight, None, stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_input, of_weight = ctx.needs_input_grad[:2]
        return (
            _input_gradient(gradient, x, weight, ctx.stride, ctx.padding) if of_input else None,
            _weight_gradient(gradient, x, weight, ctx.stride, ctx.padding) if of_weight else None,
            None,
            None,
        )


def _input_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int
) -> Tensor:
    side, pixels = weight.shape[-1], gradient.shape[-2] * gradient.shape[-1]
    if side == 1 and padding == 0 and stride > 1:
        spread = torch.zeros_like(x)
        spread[:, :, ::stride, ::stride] = F.conv2d(gradient, weight.transpose(0, 1))
        return spread
    if side > 1 and stride == 1 and pixels <= _UNFOLD_ALL_PX:
        turned = weight.flip(2, 3).transpose(0, 1)
        flat = unfold(gradient, side, 1, side - 1 - padding) @ _rows(turned).T
        n, channels, height, width = x.shape
        return flat.view(n, height, width, channels).permute(0, 3, 1, 2)
    return _library_gradient(gradient, x, weight, stride, padding, (True, False))


def _weight_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int
) -> Tensor:
    side, pixels = weight.shape[-1], gradient.shape[-2] * gradient.shape[-1]
    if side > 1 and pixels > _UNFOLD_WEIGHT_GRADIENT_PX:
        return _library_gradient(gradient, x, weight, stride, padding, (False, True))
    out_channels, in_channels = weight.shape[:2]
    rows = gradient.permute(0, 2, 3, 1).reshape(-1, out_channels)
    flat = rows.T @ unfold(x, side, stride, padding)
    return flat.view(out_channels, side, side, in_channels).permute(0, 3, 1, 2)


def _library_gradient(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    wanted: tuple[bool, bool],
) -> Tensor:
    both = torch.ops.aten.convolution_backward(
        gradient,
        x,
        weight,
        None,
        [stride, stride],
        [padding, padding],
        [1, 1],
        False,
        [0, 0],
        1,
        [*wanted, False],
    )
    return both[wanted.index(True)]


def unfold(
    x: BFloat16[Tensor, "n c h w"], side: int, stride: int, padding: int
) -> BFloat16[Tensor, "rows patch"]:
    """One row for every output pixel: the patch that it sees, row by row, channels last."""
    x = x.permute(0, 2, 3, 1)
    if padding:
        x = F.pad(x, (0, 0, padding, padding, padding, padding))
    x = x.contiguous()
    n, height, width, channels = x.shape
    out_height, out_width = ((size - side) // stride + 1 for size in (height, width))
    # A row of a patch lies in one piece, so that this copies runs and not single values.
    patches = x.as_strided(
        (n, out_height, out_width, side, side * channels),
        (x.stride(0), stride * x.stride(1), stride * x.stride(2), x.stride(1), 1),
    )
    return patches.reshape(n * out_height * out_width, side * side * channels)


def _rows(weight: Tensor) -> Tensor:
    """The kernel with one row an output channel, in the order of `unfold`."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
