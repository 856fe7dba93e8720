"""What a head is for: the dimensions of h and z, by what the head is made of (DirectCLR)."""

from collections.abc import Sequence

from headwise.files import Json
from headwise.report.reading.study import Figure
from headwise.study.design import Axis, Claim, Contrast, Group, Study, axis
from headwise.study.presets import PRESETS
from headwise.study.presets.budgets import (
    NOT_RUN,
    Budget,
    base,
    measured,
    of_budget,
    of_shapes,
    only,
    seeds,
)

DIRECT_CLR = "DirectCLR (arXiv 2110.09348)"


def _heads() -> dict[str, Json]:
    """None, linear, and two layers with a linear, a kinked and a smooth activation."""
    plain = {"head.batch_norm": False}
    heads: dict[str, Json] = {
        "none": {"head.name": "identity"},
        "linear": {"head.name": "linear"},
        "linear, plain": {"head.name": "linear", **plain},
    }
    for words, activation in (("two linear", "none"), ("relu", "relu"), ("gelu", "gelu")):
        heads[words] = {"head.name": "mlp", "head.activation": activation}
        heads[f"{words}, plain"] = {**heads[words], **plain}
    return heads


def collapse(budget: Budget, data: Sequence[str]) -> Study:
    """Heads without BatchNorm are called plain."""
    spec = only("collapse", data)
    few = budget == "trial" or (budget == "small" and not of_shapes(spec))
    heads = _heads()
    if few:
        chosen = ("none", "linear", "two linear", "relu", "relu, plain")
        heads = {name: heads[name] for name in chosen}
    lengths = (4, 8, 17) if of_shapes(spec) else (3, 9)
    epochs = of_budget(budget, trial=(1, 2), small=lengths, full=(25, 50, 100, 200))
    longest = f"{epochs[-1]}"
    return Study(
        name="collapse",
        asks=PRESETS["collapse"],
        base=base(budget, spec),
        grids=((Axis(name="head", levels=heads), axis("epochs", "epochs", *epochs)),),
        evaluate=measured("linear", "geometry"),
        seeds=seeds(budget),
        claims=_claims(longest),
        figures=_figures(longest),
        takes=of_budget(
            budget,
            trial="about a minute on two cores (20 runs)",
            small="about 40 minutes on two cores: 135 runs of the shapes, of 20 to 60 s each; "
            "of other images 50 runs",
            full=NOT_RUN.format("3 days") + " (180 runs)",
        ),
    )


def _figures(longest: str) -> tuple[Figure, ...]:
    ranks = (
        Figure(
            name=f"rank-{tap}",
            title=f"Effective rank of {tap}, by epochs of training",
            kind="lines",
            measures=(f"rank/{tap}",),
            along="epochs",
            by="head",
        )
        for tap in ("h", "z")
    )
    accuracy = Figure(
        name="accuracy",
        title="h and z under a linear probe",
        kind="bars",
        measures=("linear/h", "linear/z"),
        along="head",
        levels={"epochs": longest},
    )
    return (*ranks, accuracy)


def _claims(longest: str) -> tuple[Claim, ...]:
    def group(head: str, measure: str) -> Group:
        return Group(levels={"head": head, "epochs": longest}, measure=measure)

    return (
        Claim(
            name="head-keeps-dimensions",
            says="With a head, h uses more dimensions than without; z takes the collapse.",
            source=DIRECT_CLR,
            paper="shown as singular values; ImageNet, linear: MLP 66.5, linear 61.1, none 51.5",
            contrasts=(
                Contrast(
                    name="rank of h, relu − none",
                    plus=group("relu", "rank/h"),
                    minus=group("none", "rank/h"),
                ),
                Contrast(
                    name="relu, rank of h − rank of z",
                    plus=group("relu", "rank/h"),
                    minus=group("relu", "rank/z"),
                ),
            ),
            margin=1.0,
        ),
        Claim(
            name="head-serves-uniformity",
            says="The head makes z more uniform than h.",
            source="RED (arXiv 2301.12189)",
            contrasts=(
                Contrast(
                    name="relu, uniformity of z − of h",
                    plus=group("relu", "uniformity/z"),
                    minus=group("relu", "uniformity/h"),
                    expects="below",
                ),
            ),
            margin=0.1,
        ),
    )
