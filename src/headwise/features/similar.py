"""Pairs of rows whose `h` are alike."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from headwise.errors import UserError

_ROWS, _COLUMNS = 512, 4096
_SAMPLE = 4096
_DENSE_SHARE = 1 / 128
"""From this share of a block's pairs on, one product of whole rows is faster than picking pairs."""
_MOST_PAIRS = 20_000_000
_MARGIN = 1e-5
"""More than the error of a bound in float32."""


@torch.no_grad()
def similar_pairs(
    queries: Float[Tensor, "m p"],
    bank: Float[Tensor, "n p"] | None,
    threshold: float,
) -> tuple[Int64[Tensor, "2 k"], Float[Tensor, " k"]]:
    """Return every pair of a row of `queries` and a row of `bank` whose cosine similarity is at
    least `threshold`, and these similarities. `bank` None: all pairs of two rows of `queries`.

    Exact. A quarter of the arithmetic of the whole product or less, if few pairs are alike: in a
    rotation to the principal axes of `bank`, the first coordinates and the length of the others
    bound a similarity from above (Cauchy-Schwarz), and most pairs are ruled out by their bound.
    Raises `UserError` for more pairs than are of use.
    """
    same, bank = bank is None, queries if bank is None else bank
    axes = _principal_axes(bank, max(bank.shape[1] // 8, min(bank.shape[1], 16)))
    scale = 1 / bank.norm(dim=1).clamp_min(1e-12)
    # Written in place: kept between temporary tensors, parts would spread over much more memory.
    bounds = torch.empty(len(bank), axes.shape[1] + 1)
    for left in range(0, len(bank), _COLUMNS):
        part = slice(left, left + _COLUMNS)
        bounds[part] = _bounded(bank[part].float(), scale[part], axes)
    pairs: list[Tensor] = []
    values: list[Tensor] = []
    found = 0
    for top in range(0, len(queries), _ROWS):
        rows = F.normalize(queries[top : top + _ROWS].float())
        reach = _bounded(rows, torch.ones(len(rows)), axes)
        for left in range(top - top % _COLUMNS if same else 0, len(bank), _COLUMNS):
            part = slice(left, left + _COLUMNS)
            bound = reach @ bounds[part].T
            if bound.amax() < threshold - _MARGIN:
                continue
            places = bound >= threshold - _MARGIN
            if same:
                places.triu_(top - left + 1)
            place, value = _checked(rows, bank[part], scale[part], places, threshold)
            pairs.append(place + torch.tensor([[top], [left]]))
            values.append(value)
            found += len(value)
            if found > _MOST_PAIRS:
                raise UserError(
                    f"--threshold must leave few pairs; more than {_MOST_PAIRS:,} are at least "
                    f"{threshold:.4f} similar; take a higher one"
                )
    none = torch.empty(2, 0, dtype=torch.long)
    return torch.cat([none, *pairs], 1), torch.cat([torch.empty(0), *values])


def _principal_axes(bank: Float[Tensor, "n p"], count: int) -> Float[Tensor, "p count"]:
    """The axes along which rows of unit length are longest, by some of the rows."""
    some = F.normalize(bank[:: max(1, len(bank) // _SAMPLE)].float()).double()
    return torch.linalg.eigh(some.T @ some).eigenvectors[:, -count:].float()


def _bounded(
    rows: Float[Tensor, "b p"], scale: Float[Tensor, " b"], axes: Float[Tensor, "p q"]
) -> Float[Tensor, "b q1"]:
    """Coordinates of rows, scaled to unit length, along the axes, and the length of the rest: the
    product of two of these is at least their similarity."""
    kept = (rows @ axes) * scale[:, None]
    rest = (1 - kept.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
    return torch.cat([kept, rest], 1)


def _checked(
    rows: Float[Tensor, "b p"],
    part: Float[Tensor, "c p"],
    scale: Float[Tensor, " c"],
    places: Tensor,
    threshold: float,
) -> tuple[Int64[Tensor, "2 k"], Float[Tensor, " k"]]:
    """The pairs at these places, of rows of unit length and rows to be scaled, that are alike."""
    i, j = places.nonzero(as_tuple=True)
    if len(i) > places.numel() * _DENSE_SHARE:
        values = ((rows @ part.float().T) * scale)[i, j]
    else:
        parts = zip(i.split(_COLUMNS), j.split(_COLUMNS), strict=True)
        values = torch.cat([(rows[a] * part[b].float()).sum(1) * scale[b] for a, b in parts])
    alike = values >= threshold
    return torch.stack([i[alike], j[alike]]), values[alike]
