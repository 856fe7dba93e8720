"""The projection head: a list of layers that can be cut anywhere."""

import copy
from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor, nn

from headwise.errors import UserError
from headwise.heads.blocks import Block, ReluBlock
from headwise.heads.config import Context
from headwise.heads.layers import Layout, batch_layout


class Head(nn.Module):
    """A projection head. Its taps are `g1`, `g2`, … after each layer, and `z` after the last."""

    def __init__(self, layers: list[nn.Module], context: Context = "self") -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.context = context

    @property
    def batch_aware(self) -> bool:
        """Whether the `z` of a sample depends on other samples, also in evaluation mode."""
        return self.context != "self"

    @property
    def tap_names(self) -> tuple[str, ...]:
        return (*(f"g{i}" for i in range(1, len(self.layers))), "z")

    @property
    def block_taps(self) -> tuple[str, ...]:
        """The taps directly after the layers with attention, in the order of `attention`."""
        named = zip(self.tap_names, self.layers, strict=False)  # identity has a tap but no layer
        return tuple(name for name, layer in named if isinstance(layer, Block | ReluBlock))

    def forward(self, h: Float[Tensor, "m p"], views: int | None = None) -> Float[Tensor, "m d"]:
        """Return `z` of all rows. The rows hold `views` views of each image, first all rows of one
        view, then all rows of the next. In evaluation `views` is 1, in pretraining 2. Raises
        `UserError` where a head that sees the batch is not told."""
        z = h
        layout = self._layout(h, views)
        for layer in self.layers:
            z = _apply(layer, z, layout)
        return z

    def taps(
        self, h: Float[Tensor, "m p"], views: int | None = None
    ) -> dict[str, Float[Tensor, "m _"]]:
        """Return the rows after every layer by tap name. The last is `z`. `views` as in
        `forward`."""
        if not self.layers:
            return {"z": h}
        rows, layout = {}, self._layout(h, views)
        for name, layer in zip(self.tap_names, self.layers, strict=True):
            h = _apply(layer, h, layout)
            rows[name] = h
        return rows

    def attention(
        self, h: Float[Tensor, "m p"], views: int | None = None
    ) -> Iterator[Float[Tensor, "s a t t"]]:
        """Yield the attention weights of each block, from row to row, for each sequence and each
        attention head. Only one block's weights are in memory at a time. `views` as in
        `forward`."""
        layout = self._layout(h, views)
        for layer in self.layers:
            if isinstance(layer, Block | ReluBlock):
                yield layer.attention(h, layout)
            h = _apply(layer, h, layout)

    def _layout(self, h: Float[Tensor, "m p"], views: int | None) -> Layout:
        if views is None and self.batch_aware:
            raise UserError(
                f"a head with context {self.context} sees the batch and needs `views`; got none; "
                "pass views=1 for rows of as many images, views=2 for the twins of pretraining"
            )
        return batch_layout(self.context, len(h), views or 1, h.device)


def with_uniform_attention(head: Head) -> Head:
    """Return a copy of the head whose blocks give every visible row the same attention weight.
    Raises `ValueError` for ReLU attention, which has no softmax to make uniform."""
    uniform = copy.deepcopy(head)
    for layer in uniform.layers:
        if isinstance(layer, ReluBlock):
            raise ValueError("uniform attention needs blocks with softmax attention; got ReLU's")
        if isinstance(layer, Block):
            layer.uniform = True
    return uniform


def _apply(layer: nn.Module, rows: Tensor, layout: Layout) -> Tensor:
    return layer(rows, layout) if isinstance(layer, Block | ReluBlock) else layer(rows)
