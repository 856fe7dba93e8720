"""The projection head: a list of layers that can be cut anywhere."""

import copy
import itertools
from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor, nn

from headwise import rng
from headwise.errors import UserError
from headwise.heads.blocks import Block, FeedForwardBlock, ReluBlock
from headwise.heads.config import (
    Context,
    FfnHead,
    FfnMatchedHead,
    HeadConfig,
    IdentityHead,
    LinearHead,
    MlpHead,
    ResolvedHead,
    TransformerHead,
    TransfusionHead,
    resolve,
)
from headwise.heads.layers import Layout, batch_layout, dense, output, scaled


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


def build_head(config: HeadConfig, p: int, seed: int = 0) -> Head:
    """Return the head for representations of size `p`. Its weights are a function of `seed`."""
    resolved = resolve(config, p)
    with rng.seeded(seed, "head"):
        return Head(_layers(resolved, p), resolved.context or "self")


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


def _layers(config: ResolvedHead, p: int) -> list[nn.Module]:
    match config:
        case IdentityHead():
            return [scaled(p)] if config.batch_norm else []
        case LinearHead(output_size=size):
            return [output(p, size) if config.batch_norm else nn.Linear(p, size)]
        case MlpHead(depth=depth, width=width, output_size=size, batch_norm=batch_norm):
            sizes = [p, *[width] * (depth - 1), size]
            return _mlp(sizes, batch_norm=batch_norm, shift=config.shift)
        case FfnHead(depth=depth, width=width, output_size=size):
            stack = [dense(width, width, batch_norm=True, activation=True) for _ in range(depth)]
            return [nn.Linear(p, width), *stack, output(width, size)]
        case FfnMatchedHead(depth=depth, width=width, output_size=size):
            goal = _parameters(Block(width, num_heads=1, ratio=config.ratio))
            # A block's parameters are two linear layers with biases, and one norm.
            hidden = round((goal - 3 * width) / (2 * width + 1))
            stack = [FeedForwardBlock(width, hidden, config.norm) for _ in range(depth)]
            return [nn.Linear(p, width), *stack, output(width, size)]
        case TransformerHead(width=width, output_size=size):
            stack = _blocks(config)  # first, because weights depend on the order of the draws
            if config.output == "mlp":
                # This code takes its MLP from lightly, whose last BatchNorm learns a shift.
                return [*stack, *_mlp([p, p, size], batch_norm=True, shift=True)]
            return [nn.Linear(p, width), *stack, output(width, size)]
        case TransfusionHead(depth=depth, width=width, output_size=size):
            mlp = _mlp([p, width, size], batch_norm=False, shift=False)
            places = {"before": (0, p), "inside": (1, width), "after": (2, size)}
            cut, at = places[config.place]
            return [*mlp[:cut], *(ReluBlock(at) for _ in range(depth)), *mlp[cut:]]
    raise AssertionError(config.name)


def _mlp(sizes: list[int], *, batch_norm: bool, shift: bool) -> list[nn.Module]:
    """Return layers from each size to the next, with ReLU after all but the last. `shift`: whether
    the last BatchNorm learns one."""
    *pairs, last = itertools.pairwise(sizes)
    hidden = [dense(*pair, batch_norm=batch_norm, activation=True) for pair in pairs]
    if batch_norm and not shift:
        return [*hidden, output(*last)]
    return [*hidden, dense(*last, batch_norm=batch_norm, activation=False)]


def _blocks(config: TransformerHead) -> list[Block]:
    return [
        Block(
            config.width,
            num_heads=config.num_heads,
            ratio=config.ratio,
            norm=config.norm,
            activation=config.activation,
            residual=config.residual,
            uniform=config.attention == "uniform",
            double_projection=config.double_projection,
        )
        for _ in range(config.depth)
    ]


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _apply(layer: nn.Module, rows: Tensor, layout: Layout) -> Tensor:
    return layer(rows, layout) if isinstance(layer, Block | ReluBlock) else layer(rows)
