"""The layers that heads are made of."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Layout(NamedTuple):
    """Who may attend to whom: the rows fall into `sequences` of equal length, one after the other,
    and a row sees the rows of its own sequence, but where `mask` says False."""

    sequences: int
    mask: Bool[Tensor, "m m"] | None = None


def layout(context: str, rows: int, views: int, device: torch.device) -> Layout:
    """The layout of a context for `rows` rows that are `views` views of `rows / views` images,
    first all of the one view, then all of the next."""
    match context:
        case "joint":
            return Layout(1)
        case "per-view":
            return Layout(views)
        case "self":
            return Layout(rows)
        case "twin-masked":
            if views == 1:
                return Layout(1)
            image = torch.arange(rows, device=device) % (rows // views)
            twin = (image[:, None] == image) & ~torch.eye(rows, dtype=torch.bool, device=device)
            return Layout(1, ~twin)
    raise AssertionError(context)


class Block(nn.Module):
    """A Transformer block whose tokens are the samples of the batch.

    No positions, no dropout: permuting the rows permutes the output. `norm` post: x = LN(x + f(x)),
    as in the code of Deep Fusion (arXiv 2403.18681); pre: x = x + f(LN(x)).
    """

    def __init__(self, width: int, num_heads: int, ratio: float, norm: str) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.pre_norm = norm == "pre"
        self.qkv = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.norm_attention = nn.LayerNorm(width)
        hidden = int(width * ratio)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        )
        self.norm_feed_forward = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "m w"], layout: Layout) -> Float[Tensor, "m w"]:
        if self.pre_norm:
            x = x + self._attend(self.norm_attention(x), layout)
            return x + self.feed_forward(self.norm_feed_forward(x))
        x = self.norm_attention(x + self._attend(x, layout))
        return self.norm_feed_forward(x + self.feed_forward(x))

    def attention(self, x: Float[Tensor, "m w"], layout: Layout) -> Float[Tensor, "s heads t t"]:
        """The attention weights that `forward` applies to `x` (which never forms them): for each
        of `s` sequences and each attention head, how much row i takes from row j."""
        query, key, _ = self._project(self.norm_attention(x) if self.pre_norm else x, layout)
        exact = torch.promote_types(query.dtype, torch.float32)
        logits = query.to(exact) @ key.to(exact).mT / query.shape[-1] ** 0.5
        if layout.mask is not None:
            logits = logits.masked_fill(~layout.mask, float("-inf"))
        return logits.softmax(-1)

    def _project(
        self, x: Float[Tensor, "m w"], layout: Layout
    ) -> tuple[Float[Tensor, "s heads t e"], ...]:
        qkv = self.qkv(x).reshape(
            layout.sequences, -1, 3, self.num_heads, x.shape[1] // self.num_heads
        )
        return tuple(qkv.permute(2, 0, 3, 1, 4).unbind(0))

    def _attend(self, x: Float[Tensor, "m w"], layout: Layout) -> Float[Tensor, "m w"]:
        query, key, value = self._project(x, layout)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=layout.mask)
        return self.merge(mixed.transpose(1, 2).reshape(x.shape))


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
