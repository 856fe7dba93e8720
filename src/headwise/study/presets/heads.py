"""SimCLR's figure 8, and what a head is made of: depth, BatchNorm, activation."""

from collections.abc import Sequence

from headwise.report.reading.study import Figure
from headwise.study.design import Axis, Claim, Contrast, Group, Study, axis
from headwise.study.presets import PRESETS
from headwise.study.presets.budgets import (
    NOT_RUN,
    SIMCLR,
    Budget,
    base,
    measured,
    of_budget,
    of_shapes,
    only,
    seeds,
)

NONE, LINEAR, MLP = ({"head": name} for name in ("none", "linear", "mlp"))

ANY_HEAD = Claim(
    name="any-head-over-none",
    says="A projection head, linear or not, makes h better than no head.",
    source=f"{SIMCLR}, Figure 8; DirectCLR (arXiv 2110.09348)",
    paper="ImageNet, linear: SimCLR by more than 10 points for a non-linear head; "
    "DirectCLR: MLP 66.5, linear 61.1, none 51.5",
    contrasts=(
        Contrast(name="linear − none", plus=Group(levels=LINEAR), minus=Group(levels=NONE)),
        Contrast(name="mlp − none", plus=Group(levels=MLP), minus=Group(levels=NONE)),
    ),
)
NON_LINEAR = Claim(
    name="non-linear-over-linear",
    says="A non-linear head makes h better than a linear head, which makes it better than none.",
    source=f"{SIMCLR}, Figure 8",
    paper="ImageNet, linear: non-linear over linear by 3 points, over none by more than 10",
    contrasts=(
        Contrast(name="mlp − linear", plus=Group(levels=MLP), minus=Group(levels=LINEAR)),
        Contrast(name="linear − none", plus=Group(levels=LINEAR), minus=Group(levels=NONE)),
    ),
)
OUTPUT_SIZE = Claim(
    name="output-size-hardly-matters",
    says="The output size of the head hardly matters for h.",
    source=f"{SIMCLR}, Figure 8",
    contrasts=tuple(
        Contrast(
            name=f"{levels['head']}, for each doubling",
            plus=Group(levels=levels, along="output size"),
            expects="alike",
        )
        for levels in (LINEAR, MLP)
    ),
    margin=0.005,
)
H_OVER_Z = Claim(
    name="h-over-z",
    says="The representation h, before the head, is better than the projection z, after it.",
    source=f"{SIMCLR}, Figure 8; Guillotine Regularization (arXiv 2206.13378)",
    paper="ImageNet, linear: h over z by more than 10 points; Guillotine: more than 30 points",
    contrasts=(
        Contrast(
            name="mlp, h − z",
            plus=Group(levels=MLP),
            minus=Group(levels=MLP, measure="linear/z"),
        ),
    ),
)


def heads(budget: Budget, data: Sequence[str]) -> Study:
    """The head and its size, and the layers of an MLP head."""
    spec = only("heads", data)
    many = of_shapes(spec) or budget == "full"
    widest = (32, 64, 128, 256, 512, 1024, 2048)
    sizes = of_budget(budget, trial=(16, 64), small=(32, 128, 512), full=widest)
    kinds = Axis(name="head", levels={name: {"head.name": name} for name in ("linear", "mlp")})
    none = Axis(name="head", levels={"none": {"head.name": "identity"}})
    grids = [(none,), (kinds, axis("output size", "head.output_size", *(sizes if many else PAIR)))]
    if many:
        grids += [(_depths(budget), BATCH_NORM), (ACTIVATIONS,)]
    else:
        grids += [(axis("depth", "head.depth", 2), BATCH_NORM)]
    return Study(
        name="heads",
        asks=PRESETS["heads"],
        base=base(budget, spec),
        grids=tuple(grids),
        evaluate=measured("knn", "linear"),
        seeds=seeds(budget),
        claims=(ANY_HEAD, NON_LINEAR, OUTPUT_SIZE, H_OVER_Z),
        figures=FIGURES if many else FIGURES[:3],
        takes=of_budget(
            budget,
            trial="about a minute on two cores (22 runs)",
            small="about 40 minutes on two cores: 80 runs of the shapes, of a minute each; "
            "of other images 30 runs of 3 minutes each",
            full=NOT_RUN.format("4 days (120 runs)"),
        ),
    )


PAIR = (128, 512)
"""Output sizes on photos, whose runs take longer."""
BATCH_NORM = Axis(
    name="BatchNorm",
    levels={"with": {"head.batch_norm": True}, "without": {"head.batch_norm": False}},
)
ACTIVATIONS = axis("activation", "head.activation", "none", "relu", "gelu")


def _depths(budget: Budget) -> Axis:
    depths = of_budget(budget, trial=(1, 2), small=(1, 2, 3, 4), full=(1, 2, 3, 4))
    return axis("depth", "head.depth", *depths)


FIGURES = (
    Figure(
        name="output-size",
        title="h under a linear probe, by head and output size",
        kind="lines",
        along="output size",
        by="head",
    ),
    Figure(
        name="h-and-z",
        title="h and z under a linear probe, MLP head",
        kind="lines",
        measures=("linear/h", "linear/z"),
        along="output size",
        levels=MLP,
    ),
    Figure(
        name="head",
        title="h and z by head",
        kind="bars",
        measures=("linear/h", "linear/z", "knn/h", "knn/z"),
        along="head",
    ),
    Figure(
        name="depth",
        title="h by depth of an MLP head, with BatchNorm and without",
        kind="lines",
        along="depth",
        by="BatchNorm",
    ),
    Figure(
        name="activation",
        title="h and z by activation of an MLP head",
        kind="bars",
        measures=("linear/h", "linear/z"),
        along="activation",
    ),
)
