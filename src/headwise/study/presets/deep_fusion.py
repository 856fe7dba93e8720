"""Deep Fusion's table: the Transformer head in every context, against FFN heads and SimCLR's."""

from collections.abc import Sequence

from headwise.errors import UserError
from headwise.files import Json
from headwise.fusion.config import FusionConfig
from headwise.report.reading.study import Figure
from headwise.study.design import Axis, Claim, Contrast, Group, Study
from headwise.study.presets import PRESETS
from headwise.study.presets.budgets import (
    NOT_RUN,
    SHAPES,
    Budget,
    base,
    measured,
    of_budget,
    of_shapes,
    seeds,
    short_name,
)

DEEP_FUSION = "Deep Fusion (arXiv 2403.18681)"
UNKNOWN = "its tables were not at hand"


def transformer(budget: Budget, *, shapes: bool) -> Json:
    """The Transformer head of a budget: four blocks, narrow where the encoder is."""
    tiny = {"head.width": 64, "head.num_heads": 8, "head.depth": 2}
    narrow = {"head.width": 64 if shapes else 128, "head.num_heads": 8}
    return {"head.name": "transformer", **of_budget(budget, trial=tiny, small=narrow, full={})}


def last_block(budget: Budget) -> str:
    """The tap after it: `g1` is the layer before the blocks."""
    return "g3" if budget == "trial" else "g5"


def measured_fusion(budget: Budget) -> FusionConfig:
    return FusionConfig(batches=2, permutations=20) if budget == "trial" else FusionConfig()


def _heads(joint: Json) -> dict[str, Json]:
    """Every arm, by its name; joint is the Transformer head as published, but for its size."""
    published = {"head.depth": 10, "head.norm": "post", "head.double_projection": True}
    same_width = {key: joint[key] for key in ("head.width", "head.depth") if key in joint}
    return {
        "mlp": {"head.name": "mlp"},
        "ffn": {"head.name": "ffn"},
        "ffn-matched": {**same_width, "head.name": "ffn-matched"},
        "joint": joint,
        "self": {**joint, "head.context": "self"},
        "per-view": {**joint, "head.context": "per-view"},
        "uniform": {**joint, "head.attention": "uniform"},
        "halves": {**joint, "head.context": "halves"},
        "twin-masked": {**joint, "head.context": "twin-masked"},
        "published": {**joint, **published},
    }


def deep_fusion(budget: Budget, data: Sequence[str]) -> Study:
    """Heads times data sets."""
    specs = data or of_budget(
        budget,
        trial=(SHAPES, "builtin:digits"),
        small=(SHAPES,),
        full=("torchvision:CIFAR10", "torchvision:CIFAR100"),
    )
    sets = {short_name(spec): {"data.spec": spec} for spec in specs}
    if len(sets) < len(specs):
        raise UserError(
            f"deep-fusion needs data sets of different names; got {' '.join(specs)}; rename one"
        )
    photos = [spec for spec in specs if not of_shapes(spec)]
    arms = _heads(transformer(budget, shapes=not photos))
    if budget == "trial":
        arms = {name: arms[name] for name in ("mlp", "ffn", "joint")}
    elif budget == "small" and photos:
        arms = {name: arms[name] for name in ("mlp", "ffn", "ffn-matched", "joint", "self")}
    return Study(
        name="deep-fusion",
        asks=PRESETS["deep-fusion"],
        base=base(budget, (*photos, *specs)[0]),
        grids=((Axis(name="data", levels=sets), Axis(name="head", levels=arms)),),
        evaluate=measured("knn", "knn_self", "linear", "linear_10", "cluster"),
        seeds=seeds(budget),
        claims=_claims(budget, tuple(sets), controls="self" in arms),
        figures=_figures(budget, tuple(sets)),
        fusion=measured_fusion(budget),
        takes=of_budget(
            budget,
            trial="a minute and a half on two cores (12 runs)",
            small="about 45 minutes on two cores for each data set: 50 runs of the shapes, "
            "of 100 s each; of other images 25 runs of 3 to 4 minutes each",
            full=NOT_RUN.format("5 days for two data sets")
            + " (100 runs; add Tiny-ImageNet as a folder: --data torchvision:CIFAR10 ./tiny)",
        ),
    )


def _claims(budget: Budget, sets: Sequence[str], *, controls: bool) -> tuple[Claim, ...]:
    tap = last_block(budget)
    trained, untrained = (
        Group(levels={"head": "joint"}, measure=f"{measure}/{tap}")
        for measure in ("fusion_gain", "fusion_gain_untrained")
    )
    training = Claim(
        name="fusion-grows-with-training",
        says="Training makes images of a class attend to each other more than they did before it.",
        source=DEEP_FUSION,
        paper="shown by pictures of attention; no number",
        contrasts=(Contrast(name="trained − untrained", plus=trained, minus=untrained),),
        margin=0.02,
    )
    exchange = Claim(
        name="attention-between-images",
        says="Attention between the images of a batch is what makes the Transformer head better.",
        source=DEEP_FUSION,
        contrasts=tuple(_against("self", "linear/h", one) for one in sets),
    )
    return (
        _over_ffn("supervised", "linear_10/z", sets),
        _over_ffn("unsupervised", "knn_self/z", sets),
        training,
        *((exchange,) if controls else ()),
    )


def _over_ffn(kind: str, measure: str, sets: Sequence[str]) -> Claim:
    how = "10 % of the labels, linear" if kind == "supervised" else "nearest other test image"
    return Claim(
        name=f"transformer-over-ffn-{kind}",
        says=f"The Transformer head is better than the FFN head on each data set, {kind} ({how}).",
        source=DEEP_FUSION,
        paper=f"on CIFAR-10, CIFAR-100 and ImageNet-200, at z; {UNKNOWN}",
        contrasts=tuple(_against("ffn", measure, one) for one in sets),
    )


def _against(other: str, measure: str, data: str) -> Contrast:
    plus, minus = (
        Group(levels={"data": data, "head": head}, measure=measure) for head in ("joint", other)
    )
    return Contrast(name=f"joint − {other}, {data}", plus=plus, minus=minus)


def _figures(budget: Budget, sets: Sequence[str]) -> tuple[Figure, ...]:
    kinds = {
        "supervised": ("linear_10/h", "linear_10/z", "linear/h", "linear/z"),
        "unsupervised": ("knn_self/h", "knn_self/z", "cluster/h", "cluster/z"),
    }
    bars = (
        Figure(
            name=f"{kind}-{data}",
            title=f"Heads on {data}, {kind}",
            kind="bars",
            measures=measures,
            along="head",
            levels={"data": data},
        )
        for data in sets
        for kind, measures in kinds.items()
    )
    blocks = range(2, int(last_block(budget)[1:]) + 1)
    gains = Figure(
        name="fusion",
        title="Fusion gain of each block of the Transformer head (joint)",
        kind="bars",
        measures=tuple(f"fusion_gain/g{block}" for block in blocks),
        along="data",
        levels={"head": "joint"},
    )
    return (*bars, gains)
