"""The settings of every head."""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, Literal

from headwise.config import check_fields
from headwise.errors import UserError, nearest
from headwise.own_code import OwnCode

Shipped = Literal[
    "identity",
    "linear",
    "mlp",
    "ffn",
    "ffn-matched",
    "transformer",
    "transfusion",
    "batchformer",
]
HeadName = Shipped | Literal["own"]
Context = Literal["joint", "per-view", "self", "halves", "twin-masked"]
Norm = Literal["pre", "post", "batch"]

HEADS: tuple[Shipped, ...] = typing.get_args(Shipped)
COMPARED: tuple[HeadName, ...] = ("identity", "linear", "mlp", "ffn", "transformer")
"""The heads of a comparison by default."""


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The projection head `g`, from `h` to `z`. A setting left at None is the head's own."""

    name: HeadName = "mlp"
    """The projection head. identity: z is h; linear: SimCLR's, one layer and BatchNorm; mlp:
    SimCLR's; ffn: Deep Fusion's baseline; ffn-matched: residual feed-forward blocks with as many
    parameters as the Transformer head; transformer: Deep Fusion's, in which the views of a batch
    attend to each other; transfusion: Deep Fusion's first version, whose ReLU attention leaves out
    the row itself; batchformer: BatchFormer's, an MLP after an attention layer that is there in
    training alone; own: a function of yours, given as --head FILE:function (docs/own.md)."""
    depth: int | None = None
    """Number of layers. mlp and batchformer: linear layers of the MLP (2). ffn:
    Linear-BatchNorm-ReLU layers (10). ffn-matched and transformer: blocks (4; published with 10).
    transfusion: blocks (5)."""
    width: int | None = None
    """Size of the hidden layers. mlp and batchformer: the size of h; transfusion: 512; others:
    256."""
    output_size: int | None = None
    """The size of z. linear, mlp, transfusion and batchformer: 128; others: 512."""
    batch_norm: bool | None = None
    """linear and mlp: put BatchNorm after every linear layer (on). identity: z is h after BatchNorm
    (off). The last BatchNorm of a head has a scale and no shift."""
    shift: bool | None = None
    """mlp: let the last BatchNorm learn a shift too (off, as in SimCLR's code; on in runs of
    version 0.1)."""
    num_heads: int | None = None
    """transformer and batchformer: number of attention heads in a block (16 and 4)."""
    ratio: float | None = None
    """transformer: width of the feed-forward layers as a multiple of --head.width (4). ffn-matched:
    the ratio of the Transformer head whose number of parameters it matches (4). batchformer: the
    same as a multiple of the size of h (1)."""
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
    activation: Literal["gelu", "relu", "none"] | None = None
    """transformer: activation of the feed-forward layers (gelu; first published with relu). mlp:
    activation after all layers but the last (relu). none: the head is linear."""
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
    own: OwnCode | None = None
    """own: the function, FILE:FUNCTION, that takes p and its settings and returns the layers, which
    may also be given as --head FILE:FUNCTION."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.own is not None:
            object.__setattr__(self, "name", "own")
        elif self.name == "own":
            raise UserError("head own needs a function; got none; give --head FILE:function")
        own = [name for name in kind_of(self.name).__annotations__ if name != "name"]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "name" or value is None:
                continue
            decided = self.name == "own" and type(self) is HeadConfig and field.name != "own"
            if field.name not in own or decided:
                settings = ", ".join(own) if self.own is None else "those of its function"
                raise UserError(
                    f"head.{field.name} is not a setting of the {self.name} head; "
                    f"got {value!r}; its settings: {settings}"
                )
            if isinstance(value, int | float) and not isinstance(value, bool):
                if field.name == "residual" and not 0 <= value < float("inf"):
                    raise UserError(f"head.residual must not be negative; got {value}")
                if field.name != "residual" and value <= 0:
                    raise UserError(f"head.{field.name} must be positive; got {value}")
        if self.activation == "none" and self.name != "mlp":
            raise UserError(
                f"head.activation none is only for the mlp head; got {self.name}; leave it out"
            )
        if self.shift and self.batch_norm is False:
            raise UserError("head.shift must come with head.batch_norm; got none; leave one out")


# The settings of each head, with the values that replace None.
# linear, mlp: SimCLR (arXiv 2002.05709), as in its code (google-research/simclr, model_util.py):
# every linear layer without a bias and before a BatchNorm, and the last BatchNorm with a scale and
# without a shift. The paper's formula has no BatchNorm.
# ffn, transformer: as in the code of Deep Fusion (arXiv 2403.18681), except for the Transformer's
# depth and norm: the published 10 blocks with norm post collapse at learning rates at which all
# other heads train (docs/decisions/0006). transfusion: arXiv 2403.18681v1.
@dataclass(frozen=True, kw_only=True)
class IdentityHead(HeadConfig):
    name: Literal["identity"] = "identity"
    batch_norm: bool = False


@dataclass(frozen=True, kw_only=True)
class LinearHead(HeadConfig):
    name: Literal["linear"] = "linear"
    output_size: int = 128
    batch_norm: bool = True


@dataclass(frozen=True, kw_only=True)
class MlpHead(HeadConfig):
    name: Literal["mlp"] = "mlp"
    depth: int = 2
    width: int
    output_size: int = 128
    batch_norm: bool = True
    shift: bool = False
    activation: Literal["gelu", "relu", "none"] = "relu"


@dataclass(frozen=True, kw_only=True)
class FfnHead(HeadConfig):
    name: Literal["ffn"] = "ffn"
    depth: int = 10
    width: int = 256
    output_size: int = 512


@dataclass(frozen=True, kw_only=True)
class FfnMatchedHead(HeadConfig):
    name: Literal["ffn-matched"] = "ffn-matched"
    depth: int = 4
    width: int = 256
    output_size: int = 512
    ratio: float = 4.0
    norm: Norm = "pre"


@dataclass(frozen=True, kw_only=True)
class TransformerHead(HeadConfig):
    name: Literal["transformer"] = "transformer"
    depth: int = 4
    width: int = 256
    output_size: int = 512
    ratio: float = 4.0
    num_heads: int = 16
    norm: Norm = "pre"
    context: Context = "joint"
    attention: Literal["softmax", "uniform"] = "softmax"
    activation: Literal["gelu", "relu"] = "gelu"
    residual: float = 1.0
    double_projection: bool = False
    output: Literal["linear", "mlp"] = "linear"


@dataclass(frozen=True, kw_only=True)
class TransfusionHead(HeadConfig):
    name: Literal["transfusion"] = "transfusion"
    depth: int = 5
    width: int = 512
    output_size: int = 128
    context: Context = "joint"
    place: Literal["before", "inside", "after"] = "after"


@dataclass(frozen=True, kw_only=True)
class BatchFormerHead(HeadConfig):
    name: Literal["batchformer"] = "batchformer"
    depth: int = 2
    width: int
    output_size: int = 128
    ratio: float = 1.0
    num_heads: int = 4


@dataclass(frozen=True, kw_only=True)
class OwnHead(HeadConfig):
    name: Literal["own"] = "own"
    own: OwnCode
    output_size: int
    context: Literal["joint", "self"]
    """joint: in evaluation mode the rows of a batch change each other."""


ResolvedHead = (
    IdentityHead
    | LinearHead
    | MlpHead
    | FfnHead
    | FfnMatchedHead
    | TransformerHead
    | TransfusionHead
    | BatchFormerHead
    | OwnHead
)
"""A `HeadConfig` in which nothing is left open: None stands only where this head has no such
setting."""


def kind_of(name: HeadName) -> type[ResolvedHead]:
    """The resolved form of the head of this name."""
    match name:
        case "identity":
            return IdentityHead
        case "linear":
            return LinearHead
        case "mlp":
            return MlpHead
        case "ffn":
            return FfnHead
        case "ffn-matched":
            return FfnMatchedHead
        case "transformer":
            return TransformerHead
        case "transfusion":
            return TransfusionHead
        case "batchformer":
            return BatchFormerHead
        case "own":
            return OwnHead
    raise UserError(f"--head must be known; got {name!r}: {nearest(name, HEADS)}")


def resolve(config: HeadConfig, p: int) -> ResolvedHead:
    """Return the config with a value for every setting of the head, for `h` of size `p`. An own
    head is resolved where it is tried (`own_head`)."""
    if isinstance(config, OwnHead):
        return config
    given = {name: value for name, value in vars(config).items() if value is not None}
    if config.name in ("mlp", "batchformer") or config.output == "mlp":
        if config.output == "mlp" and config.width not in (None, p):
            raise UserError(
                f"head.width with head.output mlp must be the encoder's p, {p}; "
                f"got {config.width}; leave it out"
            )
        given.setdefault("width", p)
    head = kind_of(config.name)(**given)
    if isinstance(head, TransformerHead) and head.width % head.num_heads:
        raise UserError(
            "head.width must be a multiple of head.num_heads; "
            f"got {head.width} and {head.num_heads}"
        )
    if isinstance(head, BatchFormerHead) and p % head.num_heads:
        raise UserError(
            "the encoder's p must be a multiple of head.num_heads for the batchformer head; "
            f"got {p} and {head.num_heads}"
        )
    return head


def for_head(config: HeadConfig, name: HeadName) -> HeadConfig:
    """Return `config` if it describes this head, else the head with its default settings."""
    return config if config.name == name else HeadConfig(name=name)


def small_head(name: HeadName) -> HeadConfig:
    """This head at the size at which all heads are tried: depth 2, width 64, d = 64."""
    sizes: dict[str, Any] = {"depth": 2, "width": 64, "output_size": 64, "num_heads": 4}
    own = kind_of(name).__annotations__
    mine = {key: size for key, size in sizes.items() if key in own}
    return dataclasses.replace(HeadConfig(name=name), **mine)
