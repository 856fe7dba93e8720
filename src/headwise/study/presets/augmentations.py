"""SimCLR's studies of augmentation: compositions (figure 5) and colour strength (table 1)."""

import itertools
from collections.abc import Collection, Sequence
from dataclasses import replace

from headwise.augment import Operator
from headwise.files import Json
from headwise.report.reading.study import Figure
from headwise.study.design import Axis, Claim, Contrast, Group, Study
from headwise.study.presets import PRESETS
from headwise.study.presets.budgets import (
    NOT_RUN,
    SIMCLR,
    Budget,
    at_levels,
    base,
    measured,
    of_budget,
    of_shapes,
    only,
    seeds,
)
from headwise.study.presets.losses import CONTRASTIVE, SUPERVISED

OPERATORS: dict[str, tuple[Operator, ...]] = {
    "crop": ("crop",),
    "cutout": ("cutout",),
    "colour": ("colour", "grey"),
    "sobel": ("sobel",),
    "noise": ("noise",),
    "blur": ("blur",),
    "rotation": ("rotation",),
}
"""Of figure 5, in its order."""


COMPOSITION = Claim(
    name="composition-over-single",
    says="Two augmentations together make a better representation than one alone.",
    source=f"{SIMCLR}, Figure 5",
    contrasts=(
        Contrast(
            name="pairs − single operators",
            plus=Group(levels={"operators": "two"}),
            minus=Group(levels={"operators": "one"}),
        ),
    ),
)


def augmentations(budget: Budget, data: Sequence[str]) -> Study:
    """Every operator alone and every pair of two, on the second view; the first is the image."""
    spec = only("augmentations", data)
    names = of_budget(
        budget,
        trial=("crop", "colour", "rotation"),
        small=("crop", "cutout", "colour", "noise", "rotation"),
        full=tuple(OPERATORS),
    )
    start = base(budget, spec)
    pairs = itertools.product(names, names)
    return Study(
        name="augmentations",
        asks=PRESETS["augmentations"],
        base=replace(start, augment=replace(start.augment, ops=())),
        grids=tuple(_arm(first, second, in_order=budget == "full") for first, second in pairs),
        evaluate=measured("knn", "linear", taps=("h",)),
        seeds=seeds(budget),
        claims=(COMPOSITION, _best_pair(names)),
        figures=(
            Figure(
                name="compositions",
                title="h under a linear probe: one operator (diagonal), or two in this order",
                kind="heatmap",
                along="second",
                by="first",
            ),
        ),
        takes=of_budget(
            budget,
            trial="about half a minute on two cores (12 runs)",
            small="about 40 minutes on two cores: 75 runs of the shapes, of a minute each; "
            "two hours on 5,000 other images",
            full=NOT_RUN.format("8 days") + " (215 runs)",
        ),
    )


def _arm(first: str, second: str, *, in_order: bool) -> tuple[Axis, ...]:
    """A grid of one arm. Crop comes first in any order, because images are cut when they are
    read. Without `in_order` both orders of any pair are one run: that of `OPERATORS`."""
    names = list(dict.fromkeys((first, second)))
    if not in_order:
        names.sort(key=list(OPERATORS).index)
    names.sort(key=lambda name: name != "crop")
    settings: Json = {"augment.ops_second": [op for name in names for op in OPERATORS[name]]}
    if "blur" in names:  # in the demo's recipe it is off
        settings["augment.blur"] = 0.5
    return (
        Axis(name="first", levels={first: {}}),
        Axis(name="second", levels={second: settings}),
        Axis(name="operators", levels={"one" if first == second else "two": {}}),
    )


def _best_pair(names: Sequence[str]) -> Claim:
    """Against every other pair."""
    best = {"first": "crop", "second": "colour"}
    others = [pair for pair in itertools.combinations(names, 2) if pair != ("crop", "colour")]
    return Claim(
        name="crop-and-colour-best",
        says="Random crops with colour distortion are better than any other pair.",
        source=f"{SIMCLR}, Figure 5",
        contrasts=tuple(
            Contrast(
                name=f"crop, colour − {first}, {second}",
                plus=Group(levels=best),
                minus=Group(levels={"first": first, "second": second}),
            )
            for first, second in others
        ),
    )


TABLE_1 = {
    "contrastive": {"0.125": 59.6, "0.25": 61.0, "0.5": 62.6, "1": 63.2},
    "supervised": {"0.125": 77.0, "0.25": 76.7, "0.5": 76.5, "1": 75.7},
}


def strength(budget: Budget, data: Sequence[str]) -> Study:
    """The strength of colour distortion, contrastive and supervised; at the strongest, blur too."""
    spec = only("strength", data)
    every = (0.125, 0.25, 0.5, 1.0)
    shapes = of_shapes(spec)
    values = of_budget(
        budget, trial=(0.125, 1.0), small=every if shapes else every[::3], full=every
    )
    strengths = Axis(name="strength", levels={f"{v:g}": {"augment.strength": v} for v in values})
    strongest = Axis(name="strength", levels={"1": strengths.levels["1"]})
    plain = Axis(name="blur", levels={"without": {}})
    blurred = Axis(name="blur", levels={"with": {"augment.blur": 0.5}})
    objectives = (CONTRASTIVE, SUPERVISED)
    return Study(
        name="strength",
        asks=PRESETS["strength"],
        base=base(budget, spec),
        grids=(
            *((one, plain, strengths) for one in objectives),
            *((one, blurred, strongest) for one in objectives),
        ),
        evaluate=measured("knn", "linear", taps=("h",)),
        seeds=seeds(budget),
        claims=(STRENGTH,),
        figures=_strength_figures(strengths.levels),
        takes=of_budget(
            budget,
            trial="under a minute on two cores (12 runs)",
            small="about 25 minutes on two cores: 50 runs of the shapes, of a minute each; "
            "of other images 30 runs of 3 minutes each",
            full=NOT_RUN.format("2 days") + " (50 runs)",
        ),
    )


def _strength_figures(tried: Collection[str]) -> tuple[Figure, ...]:
    return (
        Figure(
            name="strength",
            title="h by strength of colour distortion, contrastive and supervised",
            kind="lines",
            along="strength",
            by="objective",
            levels={"blur": "without"},
            paper=at_levels(TABLE_1, tried),
            paper_source="SimCLR, Table 1, ImageNet",
        ),
        Figure(
            name="blur",
            title="h at the strongest colours, without blur and with it",
            kind="bars",
            along="blur",
            by="objective",
            levels={"strength": "1"},
            paper={
                "contrastive": {"without": 63.2, "with": 64.5},
                "supervised": {"without": 75.7, "with": 75.4},
            },
            paper_source="SimCLR, Table 1, ImageNet",
        ),
    )


def _along_strength(objective: str) -> Group:
    return Group(levels={"objective": objective, "blur": "without"}, along="strength")


STRENGTH = Claim(
    name="stronger-colour-not-supervised",
    says="Stronger colour distortion helps contrastive learning, and does not help supervised "
    "learning.",
    source=f"{SIMCLR}, Table 1",
    paper="ImageNet, linear, strength 1/8 to 1: contrastive 59.6 to 63.2, supervised 77.0 to 75.7",
    contrasts=(
        Contrast(name="contrastive, for each doubling", plus=_along_strength("contrastive")),
        Contrast(
            name="slope, contrastive − supervised",
            plus=_along_strength("contrastive"),
            minus=_along_strength("supervised"),
        ),
    ),
    margin=0.01,
)
