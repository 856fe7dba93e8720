"""Fine-tuning: with few labels (SimCLR's table 7), with all, and from a tap of the head."""

from collections.abc import Sequence
from dataclasses import replace

from headwise.evaluation.config import EvaluateConfig
from headwise.evaluation.protocols.finetune import FinetuneConfig
from headwise.evaluation.protocols.forgetting import ForgettingConfig
from headwise.evaluation.protocols.semi import SemiConfig
from headwise.heads import HeadConfig
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

SIMCLR_V2 = "SimCLRv2 (arXiv 2006.10029)"


def _epochs(budget: Budget, spec: str | None) -> Axis:
    """Little pretraining, and that of the budget."""
    small = (4, 17) if of_shapes(spec) else (3, 13)
    return axis("epochs", "epochs", *of_budget(budget, trial=(1, 2), small=small, full=(20, 200)))


def _longest(epochs: Axis) -> dict[str, str]:
    return {"epochs": list(epochs.levels)[-1]}


def _few_labels(levels: dict[str, str]) -> Claim:
    return Claim(
        name="few-labels-over-scratch",
        says="With 1 % and with 10 % of the labels, fine-tuning a pretrained network is better "
        "than training from scratch.",
        source=f"{SIMCLR}, Table 7",
        paper="ImageNet, top-1: 48.3 and 65.6 pretrained, 25.4 and 56.4 supervised",
        contrasts=tuple(
            Contrast(
                name=f"{percent} % of the labels, pretrained − from scratch",
                plus=Group(levels=levels, measure=f"semi_{percent}/finetuned"),
                minus=Group(levels=levels, measure=f"semi_{percent}/scratch"),
            )
            for percent in (1, 10)
        ),
    )


def _over_scratch(levels: dict[str, str]) -> Claim:
    return Claim(
        name="fine-tuning-over-scratch",
        says="With all labels, fine-tuning a pretrained network is better than training from "
        "scratch.",
        source=f"{SIMCLR}, section 6 and B.8",
        contrasts=(
            Contrast(
                name="fine-tuned − from scratch",
                plus=Group(levels=levels, measure="finetune/h"),
                minus=Group(levels=levels, measure="finetune/scratch"),
            ),
        ),
    )


BEFORE_AFTER = ("before", "after")


def _forgets(levels: dict[str, str], what: Sequence[str]) -> Claim:
    return Claim(
        name="fine-tuning-forgets-nothing",
        says="Fine-tuning on all labels forgets nothing: other properties of the images, other "
        "images and twins are recognised as before.",
        source="the representation is said to be kept; no paper has a number for it here",
        contrasts=tuple(
            Contrast(
                name=f"{one.replace('_', ' of ')}, after − before",
                plus=Group(levels=levels, measure=f"forgetting_{one}/after"),
                minus=Group(levels=levels, measure=f"forgetting_{one}/before"),
                expects="alike",
            )
            for one in what
        ),
    )


def _forgetting(budget: Budget, config: EvaluateConfig) -> EvaluateConfig:
    limit = of_budget(budget, trial=100, small=2000, full=None)
    protocols = (*config.protocols, "forgetting")
    return replace(config, protocols=protocols, forgetting=ForgettingConfig(limit=limit))


_H, _G1, _Z = (Group(levels={"depth": "3"}, measure=f"finetune/{tap}") for tap in ("h", "g1", "z"))
DISCARD = Claim(
    name="discard-for-fine-tuning",
    says="Discarding the head is better for fine-tuning than keeping all of it.",
    source=f"{SIMCLR}, section 4.2",
    contrasts=(Contrast(name="from h − from z", plus=_H, minus=_Z),),
)
FIRST_LAYER = Claim(
    name="fine-tune-from-first-layer",
    says="Fine-tuning from the first layer of a three-layer head is better than from h.",
    source=SIMCLR_V2,
    paper="ImageNet, 1 % of the labels: up to 14 % relative",
    contrasts=(Contrast(name="from g1 − from h", plus=_G1, minus=_H),),
)


def semi_supervised(budget: Budget, data: Sequence[str]) -> Study:
    """1 % and 10 % of the labels, pretrained and from scratch."""
    spec = only("semi-supervised", data)
    epochs = _epochs(budget, spec)
    config = SemiConfig(epochs=(1, 1), min_steps=2) if budget == "trial" else SemiConfig()
    measures = ("semi_1/finetuned", "semi_1/scratch", "semi_10/finetuned", "semi_10/scratch")
    return Study(
        name="semi-supervised",
        asks=PRESETS["semi-supervised"],
        base=base(budget, spec),
        grids=((epochs,),),
        evaluate=replace(measured("semi", "linear", taps=("h",)), semi=config),
        seeds=seeds(budget),
        claims=(_few_labels(_longest(epochs)),),
        figures=(
            Figure(
                name="few-labels",
                title="Accuracy with 1 % and 10 % of the labels, by epochs of pretraining",
                kind="lines",
                measures=measures,
                along="epochs",
            ),
        ),
        takes=of_budget(
            budget,
            trial="under half a minute on two cores (4 runs)",
            small="about 15 minutes on two cores: 10 runs of the shapes, of 2 to 3 minutes each; "
            "of other images, 30 minutes",
            full=NOT_RUN.format("8 hours") + " (10 runs)",
        ),
    )


def fine_tune(budget: Budget, data: Sequence[str]) -> Study:
    """All labels, pretrained and from scratch; and what was there before and is not any more."""
    spec = only("fine-tune", data)
    shapes = of_shapes(spec) and budget != "full"
    forgotten = (*(("factors",) if shapes else ()), "knn_digits", "contrastive")
    epochs = _epochs(budget, spec)
    return Study(
        name="fine-tune",
        asks=PRESETS["fine-tune"],
        base=base(budget, spec),
        grids=((epochs,),),
        evaluate=_forgetting(budget, _finetuning(budget, spec, ("h",))),
        seeds=seeds(budget),
        claims=(_over_scratch(_longest(epochs)), _forgets(_longest(epochs), forgotten)),
        figures=(
            Figure(
                name="fine-tuned",
                title="Accuracy with all labels, by epochs of pretraining",
                kind="lines",
                measures=("finetune/h", "finetune/scratch", "linear/h"),
                along="epochs",
            ),
            Figure(
                name="forgotten",
                title="What h and z could tell before and after fine-tuning",
                kind="bars",
                measures=tuple(f"forgetting_{w}/{t}" for w in forgotten for t in BEFORE_AFTER),
                along="epochs",
            ),
        ),
        takes=of_budget(
            budget,
            trial="under half a minute on two cores (4 runs)",
            small="about 25 minutes on two cores: 10 runs of the shapes, of 5 minutes each; "
            "of other images, 45 minutes",
            full=NOT_RUN.format("10 hours") + " (10 runs)",
        ),
    )


def fine_tune_from_tap(budget: Budget, data: Sequence[str]) -> Study:
    """All labels, with the head discarded, or kept up to a tap."""
    spec = only("fine-tune-from-tap", data)
    photos = budget == "small" and not of_shapes(spec)
    depths = axis("depth", "head.depth", *((3,) if photos else (2, 3)))
    return Study(
        name="fine-tune-from-tap",
        asks=PRESETS["fine-tune-from-tap"],
        base=base(budget, spec, HeadConfig(name="mlp")),
        grids=((depths,),),
        evaluate=_finetuning(budget, spec, ("h", "g1", "z")),
        seeds=seeds(budget),
        claims=(DISCARD, FIRST_LAYER),
        figures=(
            Figure(
                name="taps",
                title="Accuracy with all labels, by the tap that the classifier reads",
                kind="bars",
                measures=("finetune/h", "finetune/g1", "finetune/z", "finetune/scratch"),
                along="depth",
            ),
        ),
        takes=of_budget(
            budget,
            trial="under half a minute on two cores (4 runs)",
            small="about 40 minutes on two cores: 10 runs of the shapes, of 8 minutes each; "
            "of other images 5 runs of 17 minutes each",
            full=NOT_RUN.format("15 hours") + " (10 runs)",
        ),
    )


def _finetuning(budget: Budget, spec: str | None, taps: tuple[str, ...]) -> EvaluateConfig:
    lrs = (0.01, 0.1, 1.0) if of_shapes(spec) or budget == "full" else (0.1, 1.0)
    config = FinetuneConfig(taps=taps, lrs=lrs)
    if budget == "trial":
        config = FinetuneConfig(taps=taps, lrs=(0.1,), epochs=1, scratch_epochs=2)
    return replace(measured("finetune", "linear"), finetune=config)
