"""The blocks of deep heads. In blocks with attention, the samples of the batch are the tokens."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from headwise.heads.config import Norm
from headwise.heads.layers import Layout


class Block(nn.Module):
    """A Transformer block whose tokens are the samples of the batch.

    There are no positions and no dropout, so permuting the rows permutes the output. Each part f
    (attention, then feed-forward) is added to its input, with r = `residual`. `norm` pre is
    x = r·x + f(LN(x)); post is x = LN(r·x + f(x)), as in the code of Deep Fusion (arXiv
    2403.18681); batch is post with BatchNorm. `uniform` makes all attention weights of a row equal.
    """

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        ratio: float = 4.0,
        norm: Norm = "pre",
        activation: str = "gelu",
        residual: float = 1.0,
        uniform: bool = False,
        double_projection: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.pre_norm = norm == "pre"
        self.residual = residual
        self.uniform = uniform
        self.first = nn.Linear(width, 3 * width) if double_projection else None
        self.qkv = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.norm_attention = _norm(norm, width)
        self.feed_forward = feed_forward(width, int(width * ratio), activation)
        self.norm_feed_forward = _norm(norm, width)

    def forward(self, x: Float[Tensor, "m w"], layout: Layout) -> Float[Tensor, "m w"]:
        if self.pre_norm:
            x = self._sum(x, self._attend(self.norm_attention(x), layout))
            return self._sum(x, self.feed_forward(self.norm_feed_forward(x)))
        x = self.norm_attention(self._sum(x, self._attend(x, layout)))
        return self.norm_feed_forward(self._sum(x, self.feed_forward(x)))

    def attention(self, x: Float[Tensor, "m w"], layout: Layout) -> Float[Tensor, "s a t t"]:
        """Return the attention weights that `forward` applies to `x` without computing them as a
        matrix: what row i takes from row j, for each of `s` sequences and `a` attention heads."""
        query, key, _ = self._project(self.norm_attention(x) if self.pre_norm else x, layout)
        exact = torch.promote_types(query.dtype, torch.float32)
        logits = query.to(exact) @ key.to(exact).mT / query.shape[-1] ** 0.5
        if layout.mask is not None:
            logits = logits.masked_fill(~layout.mask, float("-inf"))
        return logits.softmax(-1)

    def _sum(self, x: Float[Tensor, "m w"], part: Float[Tensor, "m w"]) -> Float[Tensor, "m w"]:
        return torch.add(part, x, alpha=self.residual)

    def _project(
        self, x: Float[Tensor, "m w"], layout: Layout
    ) -> tuple[Float[Tensor, "s a t e"], ...]:
        qkv = self.qkv(x) if self.first is None else self._second_projection(self.first(x))
        qkv = qkv.reshape(layout.sequences, -1, 3, self.num_heads, x.shape[1] // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return query * 0 if self.uniform else query, key, value

    def _second_projection(self, qkv: Float[Tensor, "m w3"]) -> Float[Tensor, "m w3"]:
        """Project queries, keys and values again, each by its own third of `self.qkv`."""
        thirds = zip(qkv.chunk(3, 1), self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
        return torch.cat([F.linear(part, weight, bias) for part, weight, bias in thirds], 1)

    def _attend(self, x: Float[Tensor, "m w"], layout: Layout) -> Float[Tensor, "m w"]:
        query, key, value = self._project(x, layout)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=layout.mask)
        return self.merge(mixed.transpose(1, 2).reshape(x.shape))


class ReluBlock(nn.Module):
    """The layer of TransFusion (arXiv 2403.18681v1), x + A·v. A holds the cosines of queries and
    keys after a ReLU, without the diagonal, and each row is divided by its sum. A row without a
    positive cosine takes nothing. Cosines have no scale, so there is no temperature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x: Float[Tensor, "m w"], layout: Layout) -> Float[Tensor, "m w"]:
        weights, value = self._weights(x, layout)
        return x + (weights.to(value.dtype) @ value).reshape(x.shape)

    def attention(self, x: Float[Tensor, "m w"], layout: Layout) -> Float[Tensor, "s 1 t t"]:
        """Return the weights A that `forward` applies to `x`, for each of `s` sequences."""
        return self._weights(x, layout)[0][:, None]

    def _weights(
        self, x: Float[Tensor, "m w"], layout: Layout
    ) -> tuple[Float[Tensor, "s t t"], Float[Tensor, "s t w"]]:
        query, key, value = self.qkv(x).reshape(layout.sequences, -1, 3 * x.shape[1]).chunk(3, -1)
        exact = torch.promote_types(query.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            query, key = (F.normalize(rows.to(exact), dim=-1) for rows in (query, key))
            weights = F.relu(query @ key.mT)
            hidden = torch.eye(weights.shape[-1], dtype=torch.bool, device=x.device)
            if layout.mask is not None:
                hidden = hidden | ~layout.mask
            weights = weights.masked_fill(hidden, 0)
            return F.normalize(weights, p=1, dim=-1), value


class BatchFormer(nn.Module):
    """The layer of BatchFormer (arXiv 2203.01522), without its dropout. In training a row gets a
    second form beside it: the row after a Transformer block over the rows of both views. In
    evaluation rows stay as they are."""

    def __init__(self, width: int, num_heads: int, ratio: float) -> None:
        super().__init__()
        self.block = Block(width, num_heads=num_heads, ratio=ratio, norm="post", activation="relu")

    def forward(self, x: Float[Tensor, "m w"]) -> Float[Tensor, "m _"]:
        return torch.cat([x, self.block(x, Layout(1))], 1) if self.training else x


class Shared(nn.Module):
    """A layer that the two forms of a row share. They pass it as one batch of `2m` rows."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Float[Tensor, "m _"]) -> Float[Tensor, "m _"]:
        if not self.training:
            return self.layer(x)
        return torch.cat(self.layer(torch.cat(x.chunk(2, 1))).chunk(2), 1)


class FeedForwardBlock(nn.Module):
    """The second half of a Transformer block: x = x + f(LN(x)) (pre), or x = norm(x + f(x))."""

    def __init__(self, width: int, hidden: int, norm: Norm) -> None:
        super().__init__()
        self.pre_norm = norm == "pre"
        self.feed_forward = feed_forward(width, hidden, "gelu")
        self.norm = _norm(norm, width)

    def forward(self, x: Float[Tensor, "m w"]) -> Float[Tensor, "m w"]:
        if self.pre_norm:
            return x + self.feed_forward(self.norm(x))
        return self.norm(x + self.feed_forward(x))


def feed_forward(width: int, hidden: int, activation: str) -> nn.Sequential:
    """Return a stack of Linear, GELU or ReLU, and Linear."""
    middle = nn.ReLU() if activation == "relu" else nn.GELU()
    return nn.Sequential(nn.Linear(width, hidden), middle, nn.Linear(hidden, width))


def _norm(norm: Norm, width: int) -> nn.Module:
    return nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width)
