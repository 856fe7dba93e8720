"""Views in C, for CPUs. Elsewhere, and where the C code was not compiled when headwise was
installed, torch makes them (`crop`, `ops`)."""

import ctypes
import functools
import importlib.util

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from headwise.augment.ops import Blur, Jitter, kernel_px


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled code, None where there is none."""
    found = importlib.util.find_spec("headwise.augment._views")
    if found is None or found.origin is None:
        return None
    return ctypes.CDLL(found.origin)


def views_in_c(
    images: UInt8[Tensor, "n 3 height width"],
    boxes: Int64[Tensor, "n 4"],
    flipped: Bool[Tensor, " n"],
    jitter: Jitter,
    grey: Bool[Tensor, " n"],
    blur: Blur,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    views: Float[Tensor, "n 3 size size"],
) -> None:
    """Cut one box of each image, resize, flip, jitter, grey, blur and normalise into `views`,
    which is channels_last. Runs without Python's lock, so that threads can share a batch."""
    code = library()
    assert code is not None
    assert views.is_contiguous(memory_format=torch.channels_last)
    n, _, height, width = images.shape
    size = views.shape[-1]
    kernel = kernel_px(size)
    sigma = torch.where(blur.applied, blur.sigma, 0)
    inputs = (images, boxes, flipped, jitter.applied, jitter.factors, jitter.order, grey, sigma)
    inputs = [values.contiguous() for values in inputs]  # alive until the call is over
    code.headwise_scratch.restype = ctypes.c_long
    floats = code.headwise_scratch(*map(ctypes.c_long, (height, width, size, kernel)))
    scratch = torch.empty(floats)
    code.headwise_views(
        *map(ctypes.c_long, (n, height, width, size)),
        *(ctypes.c_void_p(values.data_ptr()) for values in inputs),
        ctypes.c_long(kernel),
        (ctypes.c_float * 3)(*mean),
        (ctypes.c_float * 3)(*std),
        *(ctypes.c_void_p(values.data_ptr()) for values in (scratch, views)),
    )
