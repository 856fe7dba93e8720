"""The layout of attention over a batch, and the layers of heads that have no attention."""

from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor, nn


class Layout(NamedTuple):
    """Which rows see each other: the rows form `sequences` consecutive sequences of equal length,
    and a row sees the rows of its own sequence for which `mask` is True."""

    sequences: int
    mask: Bool[Tensor, "m m"] | None = None


def batch_layout(context: str, rows: int, views: int, device: torch.device) -> Layout:
    """Return the layout of a context for `rows` rows: `views` views of `rows / views` images, first
    all rows of one view, then all rows of the next."""
    images = rows // views
    match context:
        case "joint":
            return Layout(1)
        case "per-view":
            return Layout(views)
        case "self":
            return Layout(rows)
        case "halves":
            # The loss cuts the images by `chunk(2)`: an odd one out belongs to the first half.
            first = torch.arange(rows, device=device) % images < (images + 1) // 2
            return Layout(1, (first[:, None] != first) | _diagonal(rows, device))
        case "twin-masked":
            if views == 1:
                return Layout(1)
            image = torch.arange(rows, device=device) % images
            return Layout(1, (image[:, None] != image) | _diagonal(rows, device))
    raise AssertionError(context)


def _diagonal(rows: int, device: torch.device) -> Bool[Tensor, "m m"]:
    return torch.eye(rows, dtype=torch.bool, device=device)


def dense(
    size_in: int, size_out: int, *, batch_norm: bool, activation: str = "relu"
) -> nn.Sequential:
    """Return Linear, BatchNorm and ReLU, GELU or none. With BatchNorm the linear layer has no
    bias."""
    layers: list[nn.Module] = [nn.Linear(size_in, size_out, bias=not batch_norm)]
    if batch_norm:
        layers.append(nn.BatchNorm1d(size_out))
    if activation != "none":
        layers.append(nn.ReLU() if activation == "relu" else nn.GELU())
    return nn.Sequential(*layers)


def output(size_in: int, size_out: int) -> nn.Sequential:
    """Return the last layer of SimCLR's and Deep Fusion's heads: Linear without a bias, then
    BatchNorm without a shift."""
    return nn.Sequential(nn.Linear(size_in, size_out, bias=False), scaled(size_out))


def scaled(size: int) -> nn.BatchNorm1d:
    """Return BatchNorm with a scale and without a shift: its bias stays zero."""
    norm = nn.BatchNorm1d(size)
    norm.bias.requires_grad_(False)
    return norm
