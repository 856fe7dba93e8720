"""The projection head: a list of layers that can be cut anywhere."""

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from headwise import rng
from headwise.config import chosen
from headwise.errors import UserError
from headwise.heads.layers import Block, Layout, dense, layout, output

HeadName = Literal["identity", "linear", "mlp", "ffn", "transformer"]
Context = Literal["joint", "per-view", "self", "twin-masked"]

# The settings each head has, and their values where the config leaves them to the head.
# linear, mlp: SimCLR (arXiv 2002.05709; BatchNorm after every layer as in its code).
# ffn, transformer: as in the code of Deep Fusion (arXiv 2403.18681), but for the Transformer's
# depth and norm: 10 blocks with norm post, as published, collapse at learning rates where all other
# heads train (docs/decisions/0006). A width of 0 is p.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "identity": {},
    "linear": {"output_size": 128},
    "mlp": {"depth": 2, "width": 0, "output_size": 128, "batch_norm": True},
    "ffn": {"depth": 10, "width": 256, "output_size": 512},
    "transformer": {
        "depth": 4,
        "width": 256,
        "output_size": 512,
        "num_heads": 16,
        "ratio": 4.0,
        "norm": "pre",
        "context": "joint",
    },
}
HEADS: tuple[HeadName, ...] = typing.get_args(HeadName)


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The projection head `g`, from `h` to `z`. A setting left at None is the head's own."""

    name: HeadName = "mlp"
    """identity (z is h), linear, mlp (SimCLR), ffn (Deep Fusion's baseline), or transformer
    (Deep Fusion: attends over the samples of the batch)."""
    depth: int | None = None
    """mlp: linear layers (2); ffn: Linear-BatchNorm-ReLU layers (10); transformer: blocks (4;
    as published 10)."""
    width: int | None = None
    """Size of the hidden layers. mlp: p; ffn, transformer: 256."""
    output_size: int | None = None
    """`d`, the size of z. linear, mlp: 128; ffn, transformer: 512."""
    batch_norm: bool | None = None
    """mlp: BatchNorm after every linear layer (yes)."""
    num_heads: int | None = None
    """transformer: attention heads (16)."""
    ratio: float | None = None
    """transformer: width of the feed-forward layers over `width` (4)."""
    norm: Literal["pre", "post"] | None = None
    """transformer: LayerNorm before each part (pre, the default) or after its sum (post, as
    published)."""
    context: Context | None = None
    """transformer: what a sample attends to. joint: both views of the batch, as published;
    per-view: the samples of its own view; self: itself alone (a control without exchange);
    twin-masked: all but its twin, a negative control that gives the twin away by its absence."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "name" or value is None:
                continue
            if field.name not in _DEFAULTS[self.name]:
                has = ", ".join(_DEFAULTS[self.name]) or "none"
                raise UserError(
                    f"head.{field.name} is not a setting of the {self.name} head; "
                    f"got {value!r}; its settings: {has}"
                )
            if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
                raise UserError(f"head.{field.name} must be positive; got {value}")


def resolve(config: HeadConfig, p: int) -> HeadConfig:
    """The config with nothing left to choose, for representations of size `p`."""
    values = {
        name: default if getattr(config, name) is None else getattr(config, name)
        for name, default in _DEFAULTS[config.name].items()
    }
    if values.get("width") == 0:
        values["width"] = p
    if "num_heads" in values and values["width"] % values["num_heads"]:
        raise UserError(
            "head.width must be a multiple of head.num_heads; "
            f"got {values['width']} and {values['num_heads']}"
        )
    return HeadConfig(name=config.name, **values)


def for_head(config: HeadConfig, name: HeadName) -> HeadConfig:
    """`config` where it is of this head; else this head with its own settings."""
    return config if config.name == name else HeadConfig(name=name)


def leaks(config: HeadConfig) -> bool:
    """Whether what a sample attends to gives its twin away, so that the loss can be solved without
    looking at the images: a mask that leaves the twin out names it."""
    return config.context == "twin-masked"


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
            if isinstance(layer, Block):
                yield layer.attention(h, who)
            h = _apply(layer, h, who)


def build_head(config: HeadConfig, p: int, seed: int = 0) -> Head:
    """The head for representations of size `p`; its weights are a function of `seed`."""
    config = resolve(config, p)
    with rng.seeded(seed, "head"):
        return Head(_layers(config, p), config.context or "self")


def _layers(config: HeadConfig, p: int) -> list[nn.Module]:
    if config.name == "identity":
        return []
    size = chosen(config.output_size)
    if config.name == "linear":
        return [nn.Linear(p, size)]
    depth, width = chosen(config.depth), chosen(config.width)
    match config.name:
        case "mlp":
            norm = chosen(config.batch_norm)
            inputs = [p, *[width] * (depth - 1)]
            hidden = [dense(n, width, batch_norm=norm, activation=True) for n in inputs[:-1]]
            return [*hidden, dense(inputs[-1], size, batch_norm=norm, activation=False)]
        case "ffn":
            stack = [dense(width, width, batch_norm=True, activation=True) for _ in range(depth)]
            return [nn.Linear(p, width), *stack, output(width, size)]
        case "transformer":
            shape = (width, chosen(config.num_heads), chosen(config.ratio), chosen(config.norm))
            blocks = [Block(*shape) for _ in range(depth)]
            return [nn.Linear(p, width), *blocks, output(width, size)]
    raise AssertionError(config.name)


def _apply(layer: nn.Module, rows: Tensor, who: Layout) -> Tensor:
    return layer(rows, who) if isinstance(layer, Block) else layer(rows)
