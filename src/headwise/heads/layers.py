"""Who sees whom in a batch, and the plain layers of heads."""

from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor, nn


class Layout(NamedTuple):
    """Who may attend to whom: the rows fall into `sequences` of equal length, one after the other,
    and a row sees the rows of its own sequence, but where `mask` says False."""

    sequences: int
    mask: Bool[Tensor, "m m"] | None = None


def layout(context: str, rows: int, views: int, device: torch.device) -> Layout:
    """The layout of a context for `rows` rows that are `views` views of `rows / views` images,
    first all of the one view, then all of the next."""
    images = rows // views
    match context:
        case "joint":
            return Layout(1)
        case "per-view":
            return Layout(views)
        case "self":
            return Layout(rows)
        case "halves":
            # As `chunk(2)` cuts the images for the loss: where they are odd, the first half is
            # one longer.
            first = torch.arange(rows, device=device) % images < (images + 1) // 2
            return Layout(1, (first[:, None] != first) | _itself(rows, device))
        case "twin-masked":
            if views == 1:
                return Layout(1)
            image = torch.arange(rows, device=device) % images
            return Layout(1, (image[:, None] != image) | _itself(rows, device))
    raise AssertionError(context)


def _itself(rows: int, device: torch.device) -> Bool[Tensor, "m m"]:
    return torch.eye(rows, dtype=torch.bool, device=device)


def dense(size_in: int, size_out: int, *, batch_norm: bool, activation: bool) -> nn.Sequential:
    """Linear, then BatchNorm (the linear layer has no bias then), then ReLU."""
    layers: list[nn.Module] = [nn.Linear(size_in, size_out, bias=not batch_norm)]
    if batch_norm:
        layers.append(nn.BatchNorm1d(size_out))
    if activation:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def output(size_in: int, size_out: int) -> nn.Sequential:
    """Deep Fusion's last layer: Linear, then BatchNorm whose bias stays zero."""
    layer = dense(size_in, size_out, batch_norm=True, activation=False)
    layer[1].bias.requires_grad_(False)
    return layer
