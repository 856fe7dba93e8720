"""Views made by compiled C on CPUs. On other devices, and if the C code was not compiled during
installation, torch makes the views (`crop`, `ops`)."""

import ctypes
import functools
import importlib.util

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from headwise.augment.ops import Blur, Jitter, kernel_px


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled code, or None if there is none."""
    spec = importlib.util.find_spec("headwise.augment._views")
    if spec is None or spec.origin is None:
        return None
    return ctypes.CDLL(spec.origin)


def views_in_c(
    images: UInt8[Tensor, "n 3 height width"],
    boxes: Int64[Tensor, "n 4"],
    *,
    flipped: Bool[Tensor, " n"],
    jitter: Jitter,
    grey: Bool[Tensor, " n"],
    blur: Blur,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    views: Float[Tensor, "n 3 size size"],
) -> None:
    """Cut one box of each image, resize, flip, jitter, grey, blur and normalise it into `views`,
    which is channels_last. ctypes releases Python's lock, so that threads can share a batch."""
    code = library()
    assert code is not None
    assert views.is_contiguous(memory_format=torch.channels_last)
    n, _, height, width = images.shape
    size = views.shape[-1]
    kernel = kernel_px(size)
    sigma = torch.where(blur.applied, blur.sigma, 0)
    inputs = (images, boxes, flipped, jitter.applied, jitter.factors, jitter.order, grey, sigma)
    inputs = [values.contiguous() for values in inputs]  # keeps the copies alive during the call
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
