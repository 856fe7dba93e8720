"""SimCLR's studies of augmentation: compositions (figure 5) and colour strength (table 1)."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from headwise.augment import Operator
from headwise.files import Json
from headwise.report.reading.study import Figure
from headwise.study.design import Axis, Claim, Contrast, Group, Study
from headwise.study.presets.budgets import (
    NOT_RUN,
    SIMCLR,
    Budget,
    base,
    measured,
    of_budget,
    only,
    seeds,
)

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
        asks="Which augmentations, alone and in pairs, make the best representation?",
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
            full=NOT_RUN.format("9 days") + " (215 runs)",
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
