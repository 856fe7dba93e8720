"""SimCLR's table 4: NT-Xent and the losses that it is compared with."""

from collections.abc import Sequence

from headwise.files import Json
from headwise.report.reading.study import Figure
from headwise.study.design import Axis, Claim, Contrast, Group, Study
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

CONTRASTIVE = Axis(name="objective", levels={"contrastive": {}})
SUPERVISED = Axis(
    name="objective",
    levels={
        "supervised": {
            "objective": "cross-entropy",
            "head.name": "linear",
            "head.batch_norm": False,
        }
    },
)
"""The classifier is a linear layer on h, trained with it."""

LOSSES: dict[str, Json] = {
    "NT-Xent": {"objective": "nt-xent"},
    "NT-Logistic": {"objective": "nt-logistic"},
    "NT-Logistic semi-hard": {"objective": "nt-logistic", "negatives": "semi-hard"},
    "margin": {"objective": "margin"},
    "margin semi-hard": {"objective": "margin", "negatives": "semi-hard"},
    "DCL": {"objective": "dcl"},
    "SupCon": {"objective": "supcon"},
}
TABLE_4 = {
    "margin": 50.9,
    "NT-Logistic": 51.6,
    "margin semi-hard": 57.5,
    "NT-Logistic semi-hard": 57.9,
    "NT-Xent": 63.9,
}


def losses(budget: Budget, data: Sequence[str]) -> Study:
    """Every loss at its own defaults. The paper tunes each; τ is that of the recipe here."""
    spec = only("losses", data)
    names = list(LOSSES)
    if budget == "small" and not of_shapes(spec):
        names.remove("SupCon")
    return Study(
        name="losses",
        asks=PRESETS["losses"],
        base=base(budget, spec),
        grids=((Axis(name="loss", levels={name: LOSSES[name] for name in names}),),),
        evaluate=measured("knn", "linear"),
        seeds=seeds(budget),
        claims=(BEST,),
        figures=(
            Figure(
                name="losses",
                title="h by loss",
                kind="bars",
                measures=("linear/h", "knn/h"),
                along="loss",
                paper={"linear/h": TABLE_4},
                paper_source="SimCLR, Table 4, ImageNet",
            ),
        ),
        takes=of_budget(
            budget,
            trial="under a minute on two cores (14 runs)",
            small="about 20 minutes on two cores: 35 runs of the shapes, of a minute each; "
            "of other images 30 runs of 3 minutes each, without SupCon",
            full=NOT_RUN.format("30 hours") + " (35 runs)",
        ),
    )


BEST = Claim(
    name="nt-xent-over-other-losses",
    says="NT-Xent is better than the logistic and the margin loss, also with semi-hard negatives.",
    source=f"{SIMCLR}, Table 4",
    paper="ImageNet, linear: margin 50.9, NT-Logistic 51.6, margin semi-hard 57.5, "
    "NT-Logistic semi-hard 57.9, NT-Xent 63.9",
    contrasts=tuple(
        Contrast(
            name=f"NT-Xent − {other}",
            plus=Group(levels={"loss": "NT-Xent"}),
            minus=Group(levels={"loss": other}),
        )
        for other in TABLE_4
        if other != "NT-Xent"
    ),
)
