"""The settings of every head."""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, Literal

from headwise.errors import UserError

HeadName = Literal["identity", "linear", "mlp", "ffn", "ffn-matched", "transformer", "transfusion"]
Context = Literal["joint", "per-view", "self", "halves", "twin-masked"]
Norm = Literal["pre", "post", "batch"]

# The settings of each head, with the values that replace None.
# linear, mlp: SimCLR (arXiv 2002.05709; BatchNorm after every layer as in its code).
# ffn, transformer: as in the code of Deep Fusion (arXiv 2403.18681), except for the Transformer's
# depth and norm: the published 10 blocks with norm post collapse at learning rates at which all
# other heads train (docs/decisions/0006). transfusion: arXiv 2403.18681v1. A width of 0 means p.
_BLOCKS: dict[str, Any] = {"depth": 4, "width": 256, "output_size": 512, "ratio": 4.0}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "identity": {},
    "linear": {"output_size": 128},
    "mlp": {"depth": 2, "width": 0, "output_size": 128, "batch_norm": True},
    "ffn": {"depth": 10, "width": 256, "output_size": 512},
    "ffn-matched": {**_BLOCKS, "norm": "pre"},
    "transformer": {
        **_BLOCKS,
        "num_heads": 16,
        "norm": "pre",
        "context": "joint",
        "attention": "softmax",
        "activation": "gelu",
        "residual": 1.0,
        "double_projection": False,
        "output": "linear",
    },
    "transfusion": {
        "depth": 5,
        "width": 512,
        "output_size": 128,
        "context": "joint",
        "place": "after",
    },
}
HEADS: tuple[HeadName, ...] = typing.get_args(HeadName)
COMPARED: tuple[HeadName, ...] = ("identity", "linear", "mlp", "ffn", "transformer")
"""The heads of a comparison by default."""


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The projection head `g`, from `h` to `z`. A setting left at None is the head's own."""

    name: HeadName = "mlp"
    """The projection head. identity: z is h; linear: one layer; mlp: SimCLR's; ffn: Deep Fusion's
    baseline; ffn-matched: residual feed-forward blocks with as many parameters as the Transformer
    head; transformer: Deep Fusion's, in which the views of a batch attend to each other;
    transfusion: Deep Fusion's first version, whose ReLU attention leaves out the row itself."""
    depth: int | None = None
    """Number of layers. mlp: linear layers (2). ffn: Linear-BatchNorm-ReLU layers (10). ffn-matched
    and transformer: blocks (4; published with 10). transfusion: blocks (5)."""
    width: int | None = None
    """Size of the hidden layers. mlp: the size of h; transfusion: 512; others: 256."""
    output_size: int | None = None
    """The size of z. linear, mlp and transfusion: 128; others: 512."""
    batch_norm: bool | None = None
    """mlp: put BatchNorm after every linear layer (on)."""
    num_heads: int | None = None
    """transformer: number of attention heads in a block (16)."""
    ratio: float | None = None
    """transformer: width of the feed-forward layers as a multiple of --head.width (4). ffn-matched:
    the ratio of the Transformer head whose number of parameters it matches (4)."""
    norm: Norm | None = None
    """transformer and ffn-matched: where a block normalises. pre: LayerNorm before each part (the
    default); post: LayerNorm after each sum, as published; batch: BatchNorm after each sum, as
    first published."""
    context: Context | None = None
    """transformer and transfusion: which rows a row attends to. joint: all rows of both views, as
    published; per-view: the rows of its own view; self: only itself, a control without exchange;
    halves: itself and the other half of the batch, which never holds its twin (its negatives then
    come from its own half); twin-masked: all rows except its twin, a negative control, because
    hiding the twin shows which row it is."""
    attention: Literal["softmax", "uniform"] | None = None
    """transformer: how the weights of attention are computed. softmax: from queries and keys;
    uniform: every row that is attended to has the same weight, a control with the same
    parameters."""
    activation: Literal["gelu", "relu"] | None = None
    """transformer: activation of the feed-forward layers (gelu; first published with relu)."""
    residual: float | None = None
    """transformer: weight of the residual connections (1; first published with 0). With more than 1
    a deep post-norm head trains more easily (DeepNorm, arXiv 2203.00555: (2·depth)^¼)."""
    double_projection: bool | None = None
    """transformer: project queries, keys and values twice, as the published code does (off)."""
    output: Literal["linear", "mlp"] | None = None
    """transformer: what follows the blocks. linear: one linear layer, as published; mlp: SimCLR's
    MLP after blocks as wide as h, as in the later version."""
    place: Literal["before", "inside", "after"] | None = None
    """transfusion: whether the blocks come before, inside or after the MLP (after)."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "name" or value is None:
                continue
            if field.name not in _DEFAULTS[self.name]:
                settings = ", ".join(_DEFAULTS[self.name]) or "none"
                raise UserError(
                    f"head.{field.name} is not a setting of the {self.name} head; "
                    f"got {value!r}; its settings: {settings}"
                )
            if isinstance(value, int | float) and not isinstance(value, bool):
                if field.name == "residual" and not 0 <= value < float("inf"):
                    raise UserError(f"head.residual must not be negative; got {value}")
                if field.name != "residual" and value <= 0:
                    raise UserError(f"head.{field.name} must be positive; got {value}")


def resolve(config: HeadConfig, p: int) -> HeadConfig:
    """Return the config with a value for every setting of the head, for `h` of size `p`."""
    values = {
        name: default if getattr(config, name) is None else getattr(config, name)
        for name, default in _DEFAULTS[config.name].items()
    }
    if values.get("width") == 0:
        values["width"] = p
    if values.get("output") == "mlp":
        if config.width not in (None, p):
            raise UserError(
                f"head.width with head.output mlp must be the encoder's p, {p}; "
                f"got {config.width}; leave it out"
            )
        values["width"] = p
    if "num_heads" in values and values["width"] % values["num_heads"]:
        raise UserError(
            "head.width must be a multiple of head.num_heads; "
            f"got {values['width']} and {values['num_heads']}"
        )
    return HeadConfig(name=config.name, **values)


def for_head(config: HeadConfig, name: HeadName) -> HeadConfig:
    """Return `config` if it describes this head, else the head with its default settings."""
    return config if config.name == name else HeadConfig(name=name)


def small_head(name: HeadName) -> HeadConfig:
    """This head at the size at which all heads are tried: depth 2, width 64, d = 64."""
    sizes = {"depth": 2, "width": 64, "output_size": 64, "num_heads": 4}
    own = dataclasses.asdict(resolve(HeadConfig(name=name), 64))
    return HeadConfig(name=name, **{key: sizes[key] for key in sizes if own[key] is not None})


def leaks(config: HeadConfig) -> bool:
    """Return whether the context reveals the twin of a sample, so that the loss can be solved
    without looking at the images. A mask that hides exactly the twin shows which row it is."""
    return config.context == "twin-masked"


def loss_groups(config: HeadConfig) -> int:
    """Return the number of parts of the batch that have separate losses: the candidates of a row
    are the rows of its part. In context halves, the hidden rows reveal which half holds the twin;
    this does not help if all candidates are in that half."""
    return 2 if config.context == "halves" else 1
