"""What h keeps and z loses (SimCLR's table 3), and what serves other images (table 8)."""

from collections.abc import Sequence
from dataclasses import replace

from headwise.evaluation.protocols.targets import PRESETS as SETS
from headwise.evaluation.protocols.transfer import TransferConfig
from headwise.evaluation.protocols.transformations import PAPER, Task, TransformationsConfig
from headwise.files import Json
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
    short_name,
)
from headwise.study.presets.deep_fusion import transformer
from headwise.study.presets.losses import CONTRASTIVE, SUPERVISED

USUAL = "colour"
"""SimCLR's own operators, for the row of colour."""
ADDED = Axis(
    name="pretraining with",
    levels={
        USUAL: {"augment.ops": ["crop", "flip", "colour", "grey"]},
        **{
            op: {"augment.ops": ["crop", "flip", "colour", "grey", op]}
            for op in ("rotation", "noise", "sobel")
        },
    },
)
TASKS: dict[str, Task] = {USUAL: "grey", "rotation": "rotation", "noise": "noise", "sobel": "sobel"}
"""The task that asks about each level."""


def transformations(budget: Budget, data: Sequence[str]) -> Study:
    """What was done to an image, read from h and z of an encoder that had it in pretraining."""
    spec = only("transformations", data)
    shapes = of_shapes(spec) and budget != "full"
    mlp: dict[str, Json] = {"mlp": {"head.name": "mlp"}}
    others: dict[str, Json] = {
        "linear": {"head.name": "linear"},
        "transformer": transformer(budget, shapes=shapes),
    }
    every = budget == "full" or (budget == "small" and shapes)
    usual = Axis(name="pretraining with", levels={USUAL: ADDED.levels[USUAL]})
    most = of_budget(budget, trial=(100, 50), small=(1000, 1000), full=(10_000, 5_000))
    config = TransformationsConfig(train=most[0], test=most[1], untrained=False)
    protocols = measured("linear", "transformations", *(("factors",) if shapes else ()))
    return Study(
        name="transformations",
        asks=PRESETS["transformations"],
        base=base(budget, spec),
        grids=(
            (Axis(name="head", levels={**mlp, **(others if every else {})}), ADDED),
            (Axis(name="head", levels={"none": {"head.name": "identity"}}), usual),
        ),
        evaluate=replace(protocols, transformations=config),
        seeds=1 if budget == "trial" else seeds(budget),
        claims=(LOST, *((FACTORS_LOST,) if shapes else ()), CONTAMINATED),
        figures=(*(_bars(head) for head in (*mlp, *(others if every else ()))), LOW_LEVEL),
        takes=of_budget(
            budget,
            trial="about a minute on two cores (5 runs)",
            small="about 45 minutes on two cores: 65 runs of the shapes, of 80 s each; "
            "of other images 25 runs of 3 to 4 minutes each",
            full=NOT_RUN.format("3 days") + " (65 runs)",
        ),
    )


def _bars(head: str) -> Figure:
    paper = {
        f"transformation_{task}/{tap}": {level: 100 * PAPER[task][tap]}
        for level, task in TASKS.items()
        for tap in ("h", "z")
    }
    return Figure(
        name=f"transformations-{head}",
        title=f"What was done to an image, read from h and z: {head}",
        kind="bars",
        measures=tuple(paper),
        along="pretraining with",
        levels={"head": head},
        paper=paper,
        paper_source="SimCLR, Table 3, ImageNet",
    )


LOW_LEVEL = Figure(
    name="low-level",
    title="Brightness, hue and blur of a view, read from h",
    kind="bars",
    measures=tuple(f"transformation_{what}/h" for what in ("brightness", "hue", "blur")),
    along="head",
    levels={"pretraining with": USUAL},
)
LOST = Claim(
    name="z-loses-augmentations",
    says="What the augmentations did to an image can be read from h, and less well from z.",
    source=f"{SIMCLR}, Table 3",
    paper="ImageNet, h / z: colour 99.3 / 97.4, rotation 67.6 / 25.6, noise 99.5 / 59.6, "
    "Sobel 96.6 / 56.3",
    contrasts=tuple(
        Contrast(
            name=f"{level}, h − z",
            plus=Group(levels=levels, measure=f"transformation_{task}/h"),
            minus=Group(levels=levels, measure=f"transformation_{task}/z"),
        )
        for level, task in TASKS.items()
        for levels in ({"head": "mlp", "pretraining with": level},)
    ),
)
_MLP, _NONE = ({"head": head, "pretraining with": USUAL} for head in ("mlp", "none"))
FACTORS_LOST = Claim(
    name="z-loses-factors",
    says="The head also loses properties of an image that no augmentation changes.",
    source="asked beyond SimCLR's Table 3 (arXiv 2002.05709); compare arXiv 2403.11391",
    contrasts=(
        Contrast(
            name="known factors, h − z",
            plus=Group(levels=_MLP, measure="factors/h"),
            minus=Group(levels=_MLP, measure="factors/z"),
        ),
    ),
)
CONTAMINATED = Claim(
    name="no-head-contaminates",
    says="Without a head, h holds more of the low-level properties of a view.",
    source="said of encoders without a head; no figure is known",
    contrasts=tuple(
        Contrast(
            name=f"{what}, none − mlp",
            plus=Group(levels=_NONE, measure=f"transformation_{what}/h"),
            minus=Group(levels=_MLP, measure=f"transformation_{what}/h"),
        )
        for what in ("brightness", "hue", "blur")
    ),
)


def transfer(budget: Budget, data: Sequence[str]) -> Study:
    """The first data set is pretrained on; the others are the targets."""
    spec, *others = data or (None,)
    targets = tuple(others) or of_budget(
        budget, trial=DIGITS, small=DIGITS, full=("cifar100",) if spec is None else DIGITS
    )
    texts = tuple(t if "=" in t or t in SETS else f"{short_name(t)}={t}" for t in targets)
    names = tuple(text.partition("=")[0].partition(":")[0] for text in texts)
    small = (4, 17) if of_shapes(spec) else (3, 13)
    few, many = of_budget(budget, trial=(1, 2), small=small, full=(20, 200))
    epochs = axis("epochs", "epochs", few, many)
    config = of_budget(
        budget,
        trial=TransferConfig(targets=texts, limit=240, steps=2, batch_size=32, lrs=(0.1,)),
        small=TransferConfig(targets=texts, limit=2000, steps=100, batch_size=128, lrs=(0.01, 0.1)),
        full=TransferConfig(targets=texts),
    )
    return Study(
        name="transfer",
        asks=PRESETS["transfer"],
        base=base(budget, spec),
        grids=((CONTRASTIVE, epochs), (SUPERVISED, epochs)),
        evaluate=replace(measured("transfer", "linear", taps=("h",)), transfer=config),
        seeds=seeds(budget),
        claims=_transfer_claims(names, f"{many}"),
        figures=_transfer_figures(names),
        takes=of_budget(
            budget,
            trial="under a minute on two cores (8 runs)",
            small="about 20 minutes on two cores for one target: 20 runs of the shapes, of 1 to 2 "
            "minutes each; of other images, 40 minutes",
            full=NOT_RUN.format("1 day") + " (20 runs; more targets: --data torchvision:CIFAR10 "
            "cifar100 flowers pets)",
        ),
    )


DIGITS = ("digits=builtin:digits",)


def _transfer_figures(names: Sequence[str]) -> tuple[Figure, ...]:
    return tuple(
        Figure(
            name=f"transfer-{how}-{name}",
            title=f"Transfer to {name}, {words}, by epochs of pretraining",
            kind="lines",
            measures=(f"transfer_{how}/{name}",),
            along="epochs",
            by="objective",
        )
        for name in names
        for how, words in (("linear", "linear probe"), ("finetune", "fine-tuned"))
    )


def _transfer_claims(names: Sequence[str], many: str) -> tuple[Claim, ...]:
    contrastive = {"objective": "contrastive"}
    longest = {**contrastive, "epochs": many}
    return (
        Claim(
            name="transfer-linear",
            says="A linear probe reads the classes of other images better from a pretrained "
            "encoder than from an untrained one.",
            source=f"{SIMCLR}, Table 8",
            paper="ResNet-50 of ImageNet: Food-101 68.4, CIFAR-10 90.6, CIFAR-100 71.6, Birdsnap "
            "37.4, SUN397 58.8, Cars 50.3, Aircraft 50.3, VOC2007 80.5, DTD 74.5, Pets 83.6, "
            "Caltech-101 90.3, Flowers 91.2",
            contrasts=tuple(
                Contrast(
                    name=f"{name}, pretrained − untrained",
                    plus=Group(levels=longest, measure=f"transfer_linear/{name}"),
                    minus=Group(levels=longest, measure=f"transfer_untrained/{name}"),
                )
                for name in names
            ),
        ),
        Claim(
            name="transfer-fine-tuned",
            says="Fine-tuned on other images, an encoder is better the longer it was pretrained.",
            source=f"{SIMCLR}, Table 8",
            contrasts=tuple(
                Contrast(
                    name=f"{name}, for each doubling of the epochs",
                    plus=Group(
                        levels=contrastive, measure=f"transfer_finetune/{name}", along="epochs"
                    ),
                )
                for name in names
            ),
            margin=0.01,
        ),
    )
