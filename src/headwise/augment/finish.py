"""The operations after the crop in C, for CPUs; in torch (`ops`) they are elsewhere, and wherever
the C code was not compiled when headwise was installed."""

import ctypes
import functools
import importlib.util

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headwise.augment.ops import Blur, Jitter, kernel_px


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled code, None where there is none."""
    found = importlib.util.find_spec("headwise.augment._finish")
    if found is None or found.origin is None:
        return None
    return ctypes.CDLL(found.origin)


def finish(
    crops: Float[Tensor, "n 3 size size"],
    flipped: Bool[Tensor, " n"],
    jitter: Jitter,
    grey: Bool[Tensor, " n"],
    blur: Blur,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    views: Float[Tensor, "n 3 size size"],
) -> None:
    """Flip, jitter, grey, blur, normalise float32 crops into `views`, which is channels_last. The
    crops are overwritten. Runs without Python's lock, so that threads can share a batch."""
    code = library()
    assert code is not None
    n, _, size, _ = crops.shape
    assert crops.is_contiguous()
    assert views.is_contiguous(memory_format=torch.channels_last)
    kernel = kernel_px(size)
    sigma = torch.where(blur.applied, blur.sigma, 0)
    inputs = (flipped, jitter.applied, jitter.factors, jitter.order, grey, sigma)
    inputs = [values.contiguous() for values in inputs]  # alive until the call is over
    scratch = torch.empty(size * size + size + kernel)
    code.headwise_finish(
        *(ctypes.c_long(number) for number in (n, size, size)),
        *(ctypes.c_void_p(values.data_ptr()) for values in (crops, *inputs)),
        ctypes.c_long(kernel),
        (ctypes.c_float * 3)(*mean),
        (ctypes.c_float * 3)(*std),
        *(ctypes.c_void_p(values.data_ptr()) for values in (scratch, views)),
    )
