"""Deep Fusion's ablations: one setting at a time under the Transformer head."""

from collections.abc import Sequence

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
from headwise.study.presets.deep_fusion import (
    DEEP_FUSION,
    UNKNOWN,
    measured_fusion,
    transformer,
)

ABLATIONS = (
    "weight-decay",
    "projection-size",
    "transformer-depth",
    "transformer-heads",
    "transformer-batch-size",
    "transformer-temperature",
)


def ablation(name: str, budget: Budget, data: Sequence[str]) -> Study:
    """The Transformer head with one setting in several levels."""
    varied, claims = _varied(name, budget)
    spec = only(name, data)
    head = transformer(budget, shapes=of_shapes(spec))
    fixed = Axis(name="head", levels={"transformer": head})
    runs = len(varied.levels) * seeds(budget)
    minutes = 2 if of_shapes(spec) else 4
    return Study(
        name=name,
        asks=PRESETS[name],
        base=base(budget, spec),
        grids=((fixed, varied),),
        evaluate=measured("knn", "knn_self", "linear", "linear_10"),
        seeds=seeds(budget),
        claims=claims,
        figures=(
            Figure(
                name=name,
                title=f"h and z of the Transformer head, by {varied.name}",
                kind="lines",
                measures=("linear/h", "linear/z", "knn_self/h", "knn_self/z"),
                along=varied.name,
            ),
        ),
        fusion=measured_fusion(budget) if name == "transformer-depth" else None,
        takes=of_budget(
            budget,
            trial=f"under a minute on two cores ({runs} runs)",
            small=f"about {runs * minutes // 2} minutes on two cores: {runs} runs, "
            f"of {minutes} minutes each",
            full=NOT_RUN.format("1 day") + f" ({runs} runs)",
        ),
    )


def _varied(name: str, budget: Budget) -> tuple[Axis, tuple[Claim, ...]]:
    match name:
        case "weight-decay":
            values = of_budget(budget, trial=(0.0, 5e-4), small=DECAYS, full=DECAYS)
            varied = axis("weight decay", "optim.weight_decay", *values)
            return varied, (_best("weight-decay", varied, "0.0005", "the weight decay 5e-4"),)
        case "projection-size":
            values = of_budget(
                budget, trial=(16, 64), small=(32, 128, 512), full=(32, 64, 128, 256, 512, 1024)
            )
            return axis("output size", "head.output_size", *values), ()
        case "transformer-depth":
            values = of_budget(budget, trial=(1, 2), small=(1, 2, 4, 8), full=(1, 2, 4, 6, 10))
            return axis("depth", "head.depth", *values), (_grows_with_depth(f"{values[-1]}"),)
        case "transformer-heads":
            values = of_budget(budget, trial=(1, 4), small=(1, 4, 16), full=(1, 2, 4, 8, 16))
            return axis("attention heads", "head.num_heads", *values), ()
        case "transformer-batch-size":
            values = of_budget(
                budget, trial=(16, 32), small=(32, 64, 128, 256), full=(128, 256, 512, 1024)
            )
            return axis("batch size", "batch_size", *values), (LARGEST_BATCH,)
        case "transformer-temperature":
            values = of_budget(budget, trial=(0.02, 0.5), small=TEMPERATURES, full=TEMPERATURES)
            varied = axis("temperature", "temperature", *values)
            return varied, (_best("temperature", varied, "0.02", "the temperature 0.02"),)
    raise AssertionError(name)


DECAYS = (0.0, 1e-6, 1e-4, 5e-4)
TEMPERATURES = (0.02, 0.1, 0.2, 0.5)

LARGEST_BATCH = Claim(
    name="transformer-best-batch-size",
    says="Larger batches, up to the 1,024 images of the code, are better for the Transformer head.",
    source=f"{DEEP_FUSION}, ablations, and the default of its code",
    paper=f"1,024 images; {UNKNOWN}",
    contrasts=(Contrast(name="for each doubling", plus=Group(along="batch size")),),
    margin=0.01,
)


def _grows_with_depth(deepest: str) -> Claim:
    slope = Group(levels={"depth": deepest}, measure="fusion_slope")
    return Claim(
        name="fusion-grows-with-depth",
        says="Images of a class attend to each other more in deeper blocks of the head.",
        source=DEEP_FUSION,
        paper="shown by pictures of attention; no number",
        contrasts=(Contrast(name=f"{deepest} blocks, fusion gain for each block", plus=slope),),
        margin=0.005,
    )


def _best(what: str, varied: Axis, best: str, words: str) -> Claim:
    """The level of the authors' code is above every other."""
    return Claim(
        name=f"transformer-best-{what}",
        says=f"Of the settings that are tried, {words} is the best for the Transformer head.",
        source=f"{DEEP_FUSION}, ablations, and the default of its code",
        paper=f"{best}; {UNKNOWN}",
        contrasts=tuple(
            Contrast(
                name=f"{best} − {other}",
                plus=Group(levels={varied.name: best}),
                minus=Group(levels={varied.name: other}),
            )
            for other in varied.levels
            if other != best
        ),
    )
