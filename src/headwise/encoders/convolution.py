"""Convolutions for CPUs: for bfloat16, where torch's own use little of the hardware, and for few
channels, where torch's own are not safe.

For images of few pixels, torch's bfloat16 weight gradient (oneDNN 3.x, AMX) reaches a tenth of the
matrix unit's speed. One matrix product over unfolded patches gives the same sums faster. The limits
below were measured; docs/performance.md has the figures.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import BFloat16
from torch import Tensor, nn

# Up to this many output pixels per image, a product over unfolded patches is faster than torch's.
_UNFOLD_WEIGHT_GRADIENT_PX = 64
_UNFOLD_ALL_PX = 16


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, faster under bfloat16 autocast on the CPU and bit-identical everywhere else."""

    def forward(self, input: Tensor) -> Tensor:
        reduced = (
            input.device.type == "cpu"
            and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16
        )
        if not reduced:
            return super().forward(input)
        # The backward of a cast is a cast, so the weight's gradient is float32, as under autocast.
        result: Any = _Convolution.apply(
            input.bfloat16(), self.weight.bfloat16(), self.stride[0], int(self.padding[0])
        )
        return result


class NarrowConv2d(nn.Conv2d):
    """A strided 1×1 convolution, computed without a stride on the pixels that it keeps. Of fewer
    than eight input channels in channels_last, torch's own float32 backward writes outside of its
    memory under AVX2 (measured with torch 2.15: "double free or corruption")."""

    def forward(self, input: Tensor) -> Tensor:
        rows, columns = self.stride
        return F.conv2d(input[..., ::rows, ::columns], self.weight, self.bias, groups=self.groups)


def replace_narrow_convolutions(model: nn.Module) -> None:
    """Turn every convolution of that kind in `model` into a `NarrowConv2d`."""
    for module in model.modules():
        narrow = type(module) is nn.Conv2d and module.in_channels < 8 and max(module.stride) > 1
        if narrow and (module.kernel_size, module.padding) == ((1, 1), (0, 0)):
            module.__class__ = NarrowConv2d


def replace_convolutions(model: nn.Module) -> None:
    """Turn every plain square convolution in `model` into a `Conv2d` with the same parameters."""
    for module in model.modules():
        if type(module) is nn.Conv2d and _plain(module):
            module.__class__ = Conv2d


def _plain(conv: nn.Conv2d) -> bool:
    """Return whether `_Convolution` supports the layer: all sizes square, one group, no bias."""
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
    return _torch_gradient(gradient, x, weight, stride, padding, of_input=True)


def _weight_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int
) -> Tensor:
    side, pixels = weight.shape[-1], gradient.shape[-2] * gradient.shape[-1]
    if side > 1 and pixels > _UNFOLD_WEIGHT_GRADIENT_PX:
        return _torch_gradient(gradient, x, weight, stride, padding, of_input=False)
    out_channels, in_channels = weight.shape[:2]
    rows = gradient.permute(0, 2, 3, 1).reshape(-1, out_channels)
    flat = rows.T @ unfold(x, side, stride, padding)
    return flat.view(out_channels, side, side, in_channels).permute(0, 3, 1, 2)


def _torch_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, *, of_input: bool
) -> Tensor:
    # `torch.nn.grad` has functions for both, but they drop the memory format of x and weight.
    geometry = ([stride, stride], [padding, padding], [1, 1], False, [0, 0], 1)
    wanted = [of_input, not of_input, False]
    gradients = torch.ops.aten.convolution_backward(gradient, x, weight, None, *geometry, wanted)
    return gradients[0 if of_input else 1]


def unfold(
    x: BFloat16[Tensor, "n c h w"], side: int, stride: int, padding: int
) -> BFloat16[Tensor, "rows patch"]:
    """Return one row per output pixel: the patch of `x` below it, row by row, channels last."""
    x = x.permute(0, 2, 3, 1)
    if padding:
        x = F.pad(x, (0, 0, padding, padding, padding, padding))
    x = x.contiguous()
    n, height, width, channels = x.shape
    out_height, out_width = ((size - side) // stride + 1 for size in (height, width))
    # A row of a patch is contiguous, so the copy moves whole rows and not single values.
    patches = x.as_strided(
        (n, out_height, out_width, side, side * channels),
        (x.stride(0), stride * x.stride(1), stride * x.stride(2), x.stride(1), 1),
    )
    return patches.reshape(n * out_height * out_width, side * side * channels)


def _rows(weight: Tensor) -> Tensor:
    """Return the kernel with one row per output channel, in the order of `unfold`."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
