"""The head that a config describes, with new weights."""

import itertools

from torch import nn

from headwise import rng
from headwise.heads.blocks import BatchFormer, Block, FeedForwardBlock, ReluBlock, Shared
from headwise.heads.config import (
    BatchFormerHead,
    FfnHead,
    FfnMatchedHead,
    HeadConfig,
    IdentityHead,
    LinearHead,
    MlpHead,
    OwnHead,
    ResolvedHead,
    TransformerHead,
    TransfusionHead,
)
from headwise.heads.config import resolve as resolve_shipped
from headwise.heads.head import Head
from headwise.heads.layers import dense, output, scaled
from headwise.heads.own_head import own_layers, resolve_own


def resolve(config: HeadConfig, p: int) -> ResolvedHead:
    """Return the config with a value for every setting of the head, for `h` of size `p`. An own
    head is built and tried; raises `UserError` if it is no head."""
    if config.own is not None and not isinstance(config, OwnHead):
        return resolve_own(config.own, p)
    return resolve_shipped(config, p)


def build_head(config: HeadConfig, p: int, seed: int = 0) -> Head:
    """Return the head for representations of size `p`. Its weights are a function of `seed`."""
    resolved = resolve(config, p)
    with rng.seeded(seed, "head"):
        return Head(_layers(resolved, p), resolved.context or "self")


def _layers(config: ResolvedHead, p: int) -> list[nn.Module]:
    match config:
        case IdentityHead():
            return [scaled(p)] if config.batch_norm else []
        case LinearHead(output_size=size):
            return [output(p, size) if config.batch_norm else nn.Linear(p, size)]
        case MlpHead(depth=depth, width=width, output_size=size, batch_norm=batch_norm):
            sizes = [p, *[width] * (depth - 1), size]
            return _mlp(
                sizes, batch_norm=batch_norm, shift=config.shift, activation=config.activation
            )
        case FfnHead(depth=depth, width=width, output_size=size):
            stack = [dense(width, width, batch_norm=True) for _ in range(depth)]
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
        case BatchFormerHead(depth=depth, width=width, output_size=size):
            mlp = _mlp([p, *[width] * (depth - 1), size], batch_norm=True, shift=False)
            return [BatchFormer(p, config.num_heads, config.ratio), *map(Shared, mlp)]
        case OwnHead(own=code):
            return own_layers(code, p)
    raise AssertionError(config.name)


def _mlp(
    sizes: list[int], *, batch_norm: bool, shift: bool, activation: str = "relu"
) -> list[nn.Module]:
    """Return layers from each size to the next, with the activation after all but the last.
    `shift`: whether the last BatchNorm learns one."""
    *pairs, last = itertools.pairwise(sizes)
    hidden = [dense(*pair, batch_norm=batch_norm, activation=activation) for pair in pairs]
    if batch_norm and not shift:
        return [*hidden, output(*last)]
    return [*hidden, dense(*last, batch_norm=batch_norm, activation="none")]


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
