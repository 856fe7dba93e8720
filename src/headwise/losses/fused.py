"""NT-Xent in two Triton kernels. The tiles stay on the chip, so memory is linear in n."""

import math
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from jaxtyping import Float, Int64
from torch import Tensor

# With more columns of z, blocks of rows do not fit on the chip.
_MAX_COLUMNS = 128


def can_fuse(z: Float[Tensor, "m d"]) -> bool:
    """Return whether the kernels can run on these projections: float32 with `d` of at most 128, on
    an NVIDIA GPU since Ampere or in Triton's interpreter."""
    fits = z.dtype == torch.float32 and z.shape[1] <= _MAX_COLUMNS
    if z.is_cuda and torch.version.cuda is not None:
        return fits and torch.cuda.get_device_capability(z.device) >= (8, 0)
    return fits and triton.knobs.runtime.interpret


def fused_nt_xent(
    z: Float[Tensor, "m d"],
    temperature: float,
    gradient: bool,
    half: bool = False,
    mates: Int64[Tensor, " m"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, "m d"] | None]:
    """Return what `tiled_nt_xent` returns, by the same formula, in float32.

    `torch.set_float32_matmul_precision` controls the matrix products, as in torch: `highest`, the
    default, reaches float32's accuracy with three TF32 products; the other settings use one. So do
    projections that came in `half` precision, which are coarser than TF32. Exponentials and sums
    are always float32.
    """
    m, d = z.shape
    z = z.contiguous()
    precise = torch.get_float32_matmul_precision() == "highest" and not half
    blocks = _blocks(z, precise) | {"MATES": mates is not None}
    groups = z if mates is None else mates.contiguous()  # not read without MATES
    grid = (triton.cdiv(m, blocks["BLOCK_M"]),)
    scale = math.log2(math.e) / temperature  # the kernels use exp2, which is faster than exp
    statistics = z.new_empty(3, m)
    with torch.cuda.device_of(z):  # Triton launches on the current device
        _statistics[grid](z, groups, statistics, m=m, d=d, scale=scale, **blocks)
    positive, hardest, total = statistics
    total.clamp_(min=1)  # it is 0 for an anchor without negatives
    margin = (positive - hardest) * math.log(2) - total.log()
    loss = -F.logsigmoid(margin).mean()
    accuracy = (positive > hardest).float().mean()
    if not gradient:
        return loss, accuracy, None
    # `missing` is 1 minus the positive's probability. `denominator` is log2 of the softmax's.
    missing = torch.sigmoid(-margin)
    denominator = hardest + total.log2() - missing.log2()
    slope = torch.empty_like(z)
    with torch.cuda.device_of(z):
        softmax = torch.stack([denominator, missing])
        _gradient[grid](z, groups, softmax, slope, m=m, d=d, scale=scale, **blocks)
    return loss, accuracy, slope.div_(m * temperature)


def _blocks(z: Float[Tensor, "m d"], precise: bool) -> dict[str, Any]:
    """Return block sizes that fit the registers and the shared memory at `d` of 128: one set for
    227 KiB of shared memory per processor (Hopper), one for 99 KiB."""
    properties = torch.cuda.get_device_properties(z.device) if z.is_cuda else None
    if properties and properties.shared_memory_per_block_optin >= 200 * 1024:
        rows, columns, warps = 128, 32 if precise else 64, 8
    else:
        rows, columns, warps = (32, 32, 4) if precise else (64, 64, 4)
    return {
        "BLOCK_M": rows,
        "BLOCK_N": columns,
        "BLOCK_D": max(16, triton.next_power_of_2(z.shape[1])),
        "PRECISION": "tf32x3" if precise else "tf32",
        "num_warps": warps,
        "num_stages": 2,
        "enable_fp_fusion": True,
    }


@triton.jit
def _rows(z, index, m, d, BLOCK_D: tl.constexpr):
    """Load rows of z, with zeros outside of z."""
    column = tl.arange(0, BLOCK_D)
    places = index.to(tl.int64)[:, None] * d + column[None, :]
    return tl.load(z + places, mask=(index < m)[:, None] & (column < d)[None, :], other=0.0)


@triton.jit
def _mates(groups, row, column, m):
    """Which rows and columns are of one group."""
    own = tl.load(groups + row, mask=row < m, other=0)
    other = tl.load(groups + column, mask=column < m, other=0)
    return own[:, None] == other[None, :]


@triton.jit
def _statistics(
    z,
    groups,
    out,
    *,
    m,
    d,
    scale,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
    MATES: tl.constexpr,
):
    """For a block of anchors, loop over blocks of candidates and store the logit of the positive,
    the highest logit of a negative, and the sum over the negatives of 2^(logit − highest)."""
    anchor = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    twin = tl.where(anchor < m // 2, anchor + m // 2, anchor - m // 2)
    own = _rows(z, anchor, m, d, BLOCK_D) * scale
    positive = tl.zeros([BLOCK_M], tl.float32)
    # Finite, because an anchor may have no negative.
    highest = tl.full([BLOCK_M], -3.4028234663852886e38, tl.float32)
    summed = tl.zeros([BLOCK_M], tl.float32)
    for first in range(0, m, BLOCK_N):
        candidate = first + tl.arange(0, BLOCK_N)
        others = _rows(z, candidate, m, d, BLOCK_D)
        logits = tl.dot(own, tl.trans(others), input_precision=PRECISION)
        is_twin = candidate[None, :] == twin[:, None]
        positive += tl.sum(tl.where(is_twin, logits, 0.0), 1)
        negative = (candidate[None, :] != anchor[:, None]) & (candidate < m)[None, :] & ~is_twin
        if MATES:
            negative &= ~_mates(groups, anchor, candidate, m)
        logits = tl.where(negative, logits, float("-inf"))
        higher = tl.maximum(highest, tl.max(logits, 1))
        summed = summed * tl.exp2(highest - higher)
        summed += tl.sum(tl.exp2(logits - higher[:, None]), 1)
        highest = higher
    tl.store(out + anchor, positive, mask=anchor < m)
    tl.store(out + m + anchor, highest, mask=anchor < m)
    tl.store(out + 2 * m + anchor, summed, mask=anchor < m)


@triton.jit
def _gradient(
    z,
    groups,
    softmax,
    out,
    *,
    m,
    d,
    scale,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
    MATES: tl.constexpr,
):
    """For a block of rows, store the sum over all other rows of weight times row. The logits are
    symmetric, so one pass serves anchors and candidates: the weight is the sum of both softmax
    probabilities, each minus 1 if the other row is the twin."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    twin = tl.where(row < m // 2, row + m // 2, row - m // 2)
    own = _rows(z, row, m, d, BLOCK_D) * scale
    own_denominator = tl.load(softmax + row, mask=row < m, other=float("inf"))
    own_missing = tl.load(softmax + m + row, mask=row < m, other=0.0)
    summed = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for first in range(0, m, BLOCK_N):
        column = first + tl.arange(0, BLOCK_N)
        others = _rows(z, column, m, d, BLOCK_D)
        logits = tl.dot(own, tl.trans(others), input_precision=PRECISION)
        their_denominator = tl.load(softmax + column, mask=column < m, other=float("inf"))
        their_missing = tl.load(softmax + m + column, mask=column < m, other=0.0)
        weight = tl.exp2(logits - own_denominator[:, None])
        weight += tl.exp2(logits - their_denominator[None, :])
        absent = (column[None, :] == row[:, None]) | (column >= m)[None, :]
        if MATES:
            absent |= _mates(groups, row, column, m)
        weight = tl.where(absent, 0.0, weight)
        pair = own_missing[:, None] + their_missing[None, :]
        weight = tl.where(column[None, :] == twin[:, None], -pair, weight)
        summed += tl.dot(weight, others, input_precision=PRECISION)
    places = row.to(tl.int64)[:, None] * d + tl.arange(0, BLOCK_D)[None, :]
    inside = (row < m)[:, None] & (tl.arange(0, BLOCK_D) < d)[None, :]
    tl.store(out + places, summed, mask=inside)
