"""SimCLR's studies of batch size (figure 9, table B.1) and of temperature (table 5)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from headwise.report.reading.study import Figure
from headwise.study.design import Axis, Claim, Contrast, Group, Study, axis
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

EQUAL_STEPS = "equal steps"
SQUARE_ROOT = Axis(name="learning rate", levels={"square root": {"optim.lr_scaling": "sqrt"}})
LINEAR = Axis(
    name="learning rate",
    levels={"linear": {"optim.lr_scaling": "linear", "optim.lr": 0.3}},
)
TABLE_B1 = {
    "100": {"256": 62.8, "1024": 64.3, "4096": 64.5},
    "200": {"256": 64.3, "1024": 66.1, "4096": 66.8},
    "400": {"256": 65.7, "1024": 67.2, "4096": 68.0},
}
"""Top-1 with the square root, by epochs and batch size."""


@dataclass(frozen=True)
class _Sizes:
    """The levels of a budget."""

    batches: tuple[int, ...]
    epochs: tuple[int, ...]
    """The fewest first."""
    steps_of: int
    """Epochs of the smallest batch at equal steps."""


def batch_size(budget: Budget, data: Sequence[str]) -> Study:
    """Batch sizes at equal epochs, few and many, and at equal steps; two scalings of the learning
    rate; supervised beside contrastive."""
    spec = only("batch-size", data)
    few = _Sizes((64, 256), (3, 13), 3)
    sizes = of_budget(
        budget,
        trial=_Sizes((16, 32), (1, 2), 1),
        small=_Sizes((32, 64, 128, 256), (6, 18), 4) if of_shapes(spec) else few,
        full=_Sizes((256, 512, 1024, 4096), (100, 200, 400), 50),
    )
    batches = axis("batch size", "batch_size", *sizes.batches)
    epochs = axis("epochs", "epochs", *sizes.epochs)
    fewest = axis("epochs", "epochs", sizes.epochs[0])
    steps = {
        f"{b}": {"batch_size": b, "epochs": sizes.steps_of * b // sizes.batches[0]}
        for b in sizes.batches
    }
    same_steps = Axis(name="batch size", levels=steps)
    grids = (
        (CONTRASTIVE, batches, epochs, SQUARE_ROOT),
        (CONTRASTIVE, batches, fewest, LINEAR),
        (CONTRASTIVE, same_steps, Axis(name="epochs", levels={EQUAL_STEPS: {}}), SQUARE_ROOT),
        (SUPERVISED, batches, fewest, SQUARE_ROOT),
    )
    return Study(
        name="batch-size",
        asks=PRESETS["batch-size"],
        base=base(budget, spec),
        grids=grids,
        evaluate=measured("knn", "linear", taps=("h",)),
        seeds=seeds(budget),
        claims=_batch_claims(f"{sizes.epochs[0]}", f"{sizes.epochs[-1]}"),
        figures=_batch_figures(f"{sizes.epochs[0]}", paper=TABLE_B1 if budget == "full" else {}),
        takes=of_budget(
            budget,
            trial="under a minute on two cores (16 runs)",
            small="about 40 minutes on two cores: 100 runs of the shapes, of 25 to 100 s each; "
            "of other images 50 runs",
            full=NOT_RUN.format("4 days") + " (110 runs)",
        ),
    )


def _batch_claims(few: str, many: str) -> tuple[Claim, ...]:
    paper = "ImageNet, linear, 256 to 8,192 images: 57.5 to 64.8 after 100 epochs, 66.6 to 69.0 "
    paper += "after 800 (linear scaling)"
    contrastive = {"objective": "contrastive", "learning rate": "square root"}
    short, long, supervised = (
        Group(levels=levels, along="batch size")
        for levels in (
            {**contrastive, "epochs": few},
            {**contrastive, "epochs": many},
            {**contrastive, "epochs": few, "objective": "supervised"},
        )
    )
    return (
        Claim(
            name="larger-batches-help",
            says="Larger batches help contrastive learning.",
            source=f"{SIMCLR}, Figure 9 and Table B.1",
            paper=paper,
            contrasts=(Contrast(name="for each doubling", plus=short),),
            margin=0.01,
        ),
        Claim(
            name="larger-batches-less-with-more-epochs",
            says="Larger batches help less when training is longer.",
            source=f"{SIMCLR}, Figure 9 and Table B.1",
            paper=paper,
            contrasts=(Contrast(name=f"slope, {few} − {many} epochs", plus=short, minus=long),),
            margin=0.01,
        ),
        Claim(
            name="larger-batches-not-supervised",
            says="Larger batches help contrastive learning more than supervised learning.",
            source=f"{SIMCLR}, Figure 9 and section 5.2",
            contrasts=(
                Contrast(name="slope, contrastive − supervised", plus=short, minus=supervised),
            ),
            margin=0.01,
        ),
    )


def _batch_figures(few: str, paper: dict[str, dict[str, float]]) -> tuple[Figure, ...]:
    root, contrastive = {"learning rate": "square root"}, {"objective": "contrastive"}
    return (
        Figure(
            name="batch-size",
            title="h by batch size, at equal epochs and at equal steps",
            kind="lines",
            along="batch size",
            by="epochs",
            levels={**root, **contrastive},
            paper=paper,
            paper_source="SimCLR, Table B.1, ImageNet" if paper else "",
        ),
        Figure(
            name="learning-rate",
            title=f"h by batch size and scaling of the learning rate, {few} epochs",
            kind="lines",
            along="batch size",
            by="learning rate",
            levels={**contrastive, "epochs": few},
        ),
        Figure(
            name="objective",
            title=f"h by batch size, contrastive and supervised, {few} epochs",
            kind="lines",
            along="batch size",
            by="objective",
            levels={**root, "epochs": few},
        ),
    )


L2, NOT_NORMALISED = (
    Axis(name="z", levels={"L2": {"normalised": True}}),
    Axis(name="z", levels={"as it is": {"normalised": False}}),
)
TABLE_5 = {
    "linear/h": {"0.05": 59.7, "0.1": 64.4, "0.5": 60.7, "1.0": 58.0},
    "training/contrastive_accuracy": {"0.05": 90.5, "0.1": 87.8, "0.5": 68.2, "1.0": 59.1},
}
"""Of normalised z, by τ."""


def temperature(budget: Budget, data: Sequence[str]) -> Study:
    """τ, with z normalised and as it is."""
    spec = only("temperature", data)
    some = (0.1, 0.5) if budget == "trial" else (0.05, 0.1, 0.5, 1.0)
    normalised = axis("temperature", "temperature", *some)
    plain = axis("temperature", "temperature", 10.0, 100.0)
    return Study(
        name="temperature",
        asks=PRESETS["temperature"],
        base=base(budget, spec),
        grids=((L2, normalised), (NOT_NORMALISED, plain)),
        evaluate=measured("knn", "linear"),
        seeds=seeds(budget),
        claims=_temperature_claims(normalised.levels),
        figures=_temperature_figures(normalised.levels),
        takes=of_budget(
            budget,
            trial="under half a minute on two cores (8 runs)",
            small="about 15 minutes on two cores: 30 runs of the shapes, of a minute each; "
            "of other images, 40 minutes",
            full=NOT_RUN.format("1 day") + " (30 runs)",
        ),
    )


def _temperature_figures(tried: Collection[str]) -> tuple[Figure, ...]:
    return (
        Figure(
            name="temperature",
            title="h by temperature, z normalised",
            kind="lines",
            measures=("linear/h", "training/contrastive_accuracy"),
            along="temperature",
            levels={"z": "L2"},
            paper=at_levels(TABLE_5, tried),
            paper_source="SimCLR, Table 5, ImageNet",
        ),
        Figure(
            name="table-5",
            title="h by temperature, z normalised or not",
            kind="bars",
            along="temperature",
            by="z",
        ),
        Figure(
            name="entropy",
            title="Entropy of the softmax over the candidates, at the end of training",
            kind="bars",
            measures=("training/contrastive_entropy",),
            along="temperature",
            by="z",
        ),
    )


def _temperature_claims(tried: Collection[str]) -> tuple[Claim, ...]:
    def at(z: str, value: str) -> Group:
        return Group(levels={"z": z, "temperature": value})

    return (
        Claim(
            name="best-temperature-normalised",
            says="With normalised z, τ = 0.1 is best, and better than z that is not normalised.",
            source=f"{SIMCLR}, Table 5",
            paper="ImageNet, linear: τ 0.05 59.7, 0.1 64.4, 0.5 60.7, 1 58.0; not normalised 57.2. "
            "On CIFAR-10 beyond 300 epochs τ = 0.5 was best",
            contrasts=tuple(
                Contrast(
                    name=f"L2, 0.1 − {z}, {other}",
                    plus=at("L2", "0.1"),
                    minus=at(z, other),
                )
                for z, other in (*(("L2", value) for value in tried), ("as it is", "10.0"))
                if other != "0.1"
            ),
        ),
        Claim(
            name="best-temperature-as-it-is",
            says="Without normalising z, the temperature hardly matters between 10 and 100.",
            source=f"{SIMCLR}, Table 5",
            paper="ImageNet, linear: τ 10 57.2, 100 57.0",
            contrasts=(
                Contrast(
                    name="as it is, 10 − 100",
                    plus=at("as it is", "10.0"),
                    minus=at("as it is", "100.0"),
                    expects="alike",
                ),
            ),
        ),
    )
