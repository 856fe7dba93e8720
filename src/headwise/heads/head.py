"""The projection head: a list of layers that can be cut anywhere."""

import copy
import itertools
from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor, nn

from headwise import rng
from headwise.config import chosen
from headwise.heads.blocks import Block, FeedForwardBlock, ReluBlock
from headwise.heads.config import Context, HeadConfig, resolve
from headwise.heads.layers import Layout, dense, layout, output


class Head(nn.Module):
    """A projection head. Its taps are `g1`, `g2`, … after each layer, and `z` after the last."""

    def __init__(self, layers: list[nn.Module], context: Context = "self") -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.context = context

    @property
    def batch_aware(self) -> bool:
        """Whether `z` of one sample depends on the others, also in evaluation."""
        return self.context != "self"

    @property
    def tap_names(self) -> tuple[str, ...]:
        return (*(f"g{i}" for i in range(1, len(self.layers))), "z")

    @property
    def block_taps(self) -> tuple[str, ...]:
        """The taps right after the layers that attend, in the order of `attention`."""
        named = zip(self.tap_names, self.layers, strict=False)  # identity: a tap and no layer
        return tuple(name for name, layer in named if isinstance(layer, Block | ReluBlock))

    def forward(self, h: Float[Tensor, "m p"], views: int = 2) -> Float[Tensor, "m d"]:
        """`z` of all rows. `views` says how many views of each image the rows are, all rows of one
        view after all rows of the other; 1 in evaluation."""
        z = h
        who = layout(self.context, len(h), views, h.device)
        for layer in self.layers:
            z = _apply(layer, z, who)
        return z

    def taps(self, h: Float[Tensor, "m p"], views: int = 2) -> dict[str, Float[Tensor, "m _"]]:
        """The rows after every layer, by tap name; the last is `z`."""
        if not self.layers:
            return {"z": h}
        rows, who = {}, layout(self.context, len(h), views, h.device)
        for name, layer in zip(self.tap_names, self.layers, strict=True):
            h = _apply(layer, h, who)
            rows[name] = h
        return rows

    def attention(
        self, h: Float[Tensor, "m p"], views: int = 2
    ) -> Iterator[Float[Tensor, "s heads t t"]]:
        """The attention weights of each block in turn: of each sequence and attention head, from
        row to row. One block's weights are held at a time."""
        who = layout(self.context, len(h), views, h.device)
        for layer in self.layers:
            if isinstance(layer, Block | ReluBlock):
                yield layer.attention(h, who)
            h = _apply(layer, h, who)


def build_head(config: HeadConfig, p: int, seed: int = 0) -> Head:
    """The head for representations of size `p`; its weights are a function of `seed`."""
    config = resolve(config, p)
    with rng.seeded(seed, "head"):
        return Head(_layers(config, p), config.context or "self")


def with_uniform_attention(head: Head) -> Head:
    """A copy of the same weights whose blocks give every row in view the same weight. Raises
    `ValueError` for ReLU attention, whose weights are no softmax to make even."""
    even = copy.deepcopy(head)
    for layer in even.layers:
        if isinstance(layer, ReluBlock):
            raise ValueError("uniform attention needs blocks with softmax attention; got ReLU's")
        if isinstance(layer, Block):
            layer.uniform = True
    return even


def _layers(config: HeadConfig, p: int) -> list[nn.Module]:
    if config.name == "identity":
        return []
    size = chosen(config.output_size)
    if config.name == "linear":
        return [nn.Linear(p, size)]
    depth, width = chosen(config.depth), chosen(config.width)
    match config.name:
        case "mlp":
            return _mlp([p, *[width] * (depth - 1), size], batch_norm=chosen(config.batch_norm))
        case "ffn":
            stack = [dense(width, width, batch_norm=True, activation=True) for _ in range(depth)]
            return [nn.Linear(p, width), *stack, output(width, size)]
        case "ffn-matched":
            goal = _parameters(Block(width, num_heads=1, ratio=chosen(config.ratio)))
            # Two linear layers with their biases, and one norm.
            hidden = round((goal - 3 * width) / (2 * width + 1))
            norm = chosen(config.norm)
            stack = [FeedForwardBlock(width, hidden, norm) for _ in range(depth)]
            return [nn.Linear(p, width), *stack, output(width, size)]
        case "transformer":
            stack = _blocks(config)  # first, as in ffn: the order of the draws is the weights
            if config.output == "mlp":
                return [*stack, *_mlp([p, p, size], batch_norm=True)]
            return [nn.Linear(p, width), *stack, output(width, size)]
        case "transfusion":
            mlp, place = _mlp([p, width, size], batch_norm=False), chosen(config.place)
            cut, at = {"before": (0, p), "inside": (1, width), "after": (2, size)}[place]
            return [*mlp[:cut], *(ReluBlock(at) for _ in range(depth)), *mlp[cut:]]
    raise AssertionError(config.name)


def _mlp(sizes: list[int], *, batch_norm: bool) -> list[nn.Module]:
    """Layers from size to size, with ReLU after all but the last."""
    last = len(sizes) - 2
    return [
        dense(size_in, size_out, batch_norm=batch_norm, activation=i < last)
        for i, (size_in, size_out) in enumerate(itertools.pairwise(sizes))
    ]


def _blocks(config: HeadConfig) -> list[Block]:
    return [
        Block(
            chosen(config.width),
            num_heads=chosen(config.num_heads),
            ratio=chosen(config.ratio),
            norm=chosen(config.norm),
            activation=chosen(config.activation),
            residual=chosen(config.residual),
            uniform=config.attention == "uniform",
            double_projection=chosen(config.double_projection),
        )
        for _ in range(chosen(config.depth))
    ]


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _apply(layer: nn.Module, rows: Tensor, who: Layout) -> Tensor:
    return layer(rows, who) if isinstance(layer, Block | ReluBlock) else layer(rows)
