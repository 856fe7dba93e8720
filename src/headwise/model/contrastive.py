"""The model: encoder and projection head."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headwise.heads import Head
from headwise.runtime import distributed


class Outputs(NamedTuple):
    """Representations and projections of two views, of the images of **all** ranks: row `i` and
    row `i + n` are twins."""

    h: Float[Tensor, "m p"]
    z: Float[Tensor, "m d"]


class ContrastiveModel(nn.Module):
    """An encoder `f` and a head `g`, trained together."""

    def __init__(self, encoder: nn.Module, head: Head) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.compiled: Callable[[Tensor], Tensor] | None = None

    def forward(self, views: Float[Tensor, "rows 3 s s"]) -> Outputs:
        """Encode this rank's views (first all first views, then their twins), gather every rank's
        `h`, and project the whole batch: a head that attends over samples needs all of them."""
        h = gather_views((self.compiled or self.encoder)(views))
        return Outputs(h, self.head(h, views=2))

    def compile_encoder(self) -> None:
        """Compile the encoder for training; who calls `encoder` itself, to extract features in
        batches of other sizes, does not wait for a compiler."""
        self.compiled = torch.compile(self.encoder.forward, dynamic=False)


def gather_views(h: Float[Tensor, "rows p"]) -> Float[Tensor, "m p"]:
    """All ranks' rows, first views of all ranks before their twins."""
    world = distributed.world_size()
    if world == 1:
        return h
    n = len(h) // 2
    gathered = distributed.gather(h).reshape(world, 2, n, h.shape[1])
    return gathered.transpose(0, 1).reshape(world * 2 * n, h.shape[1])
