"""Which deep heads train, with which optimizer, learning rate, temperature and residual weight?
Pretrain briefly in each setting, and print a Markdown table of the last loss and accuracy.

    python examples/head_stability.py --data IMAGES --out runs/head-stability

Finished runs are kept: call it again to continue after an interruption.
"""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

from headwise.data import DataConfig, Splits, open_images
from headwise.encoders.build import SMALL_RESNET, EncoderConfig
from headwise.errors import UserError
from headwise.evaluation.config import EvaluateConfig
from headwise.evaluation.evaluate import evaluate
from headwise.heads import HeadConfig
from headwise.model.config import PretrainConfig
from headwise.model.objective import Objective
from headwise.model.optim import OptimConfig
from headwise.pretraining.loop import pretrain, resume
from headwise.pretraining.recipes import recipe
from headwise.runs.directory import Run


class Setting(NamedTuple):
    head: HeadConfig
    optim: OptimConfig
    temperature: float
    objective: Objective = "nt-xent"


PUBLISHED = recipe("deepfusion")
FIRST = recipe("deepfusion-first").head
LATER = recipe("deepfusion-later").head
# The optimizer of the later variant, 0.075·√B, with our warm-up.
LARS = recipe("small").optim
# DeepNorm's weight of a part's input, for ten blocks of two parts.
DEEPNORM = (2 * 10) ** 0.25
PRE = HeadConfig(name="transformer", depth=10, norm="pre")
SCALED = HeadConfig(name="transformer", depth=10, norm="post", residual=DEEPNORM)


def adamw(lr: float, warmup_epochs: float | None = None) -> OptimConfig:
    return OptimConfig(name="adamw", lr=lr, warmup_epochs=warmup_epochs)


def sgd(lr: float) -> OptimConfig:
    return OptimConfig(name="sgd", lr=lr, weight_decay=5e-4)


SETTINGS = {
    "published": Setting(PUBLISHED.head, PUBLISHED.optim, 0.02),
    "published, SGD 0.03": Setting(PUBLISHED.head, sgd(0.03), 0.02),
    "published, SGD 0.03, τ 0.2": Setting(PUBLISHED.head, sgd(0.03), 0.2),
    "published, AdamW 1e-3, τ 0.02": Setting(PUBLISHED.head, adamw(1e-3), 0.02),
    "published, AdamW 1e-3": Setting(PUBLISHED.head, adamw(1e-3), 0.2),
    "published, AdamW 1e-3, no warm-up": Setting(PUBLISHED.head, adamw(1e-3, 0.0), 0.2),
    "published, AdamW 3e-3": Setting(PUBLISHED.head, adamw(3e-3), 0.2),
    "published, AdamW 3e-4": Setting(PUBLISHED.head, adamw(3e-4), 0.2),
    "published, AdamW 3e-4, τ 0.02": Setting(PUBLISHED.head, adamw(3e-4), 0.02),
    "published, LARS": Setting(PUBLISHED.head, LARS, 0.2),
    "residual 2.1, AdamW 1e-3": Setting(SCALED, adamw(1e-3), 0.2),
    "residual 2.1, AdamW 3e-3": Setting(SCALED, adamw(3e-3), 0.2),
    "residual 2.1, SGD 0.03, τ 0.02": Setting(SCALED, sgd(0.03), 0.02),
    "pre-norm, AdamW 1e-3": Setting(PRE, adamw(1e-3), 0.2),
    "pre-norm, AdamW 3e-3": Setting(PRE, adamw(3e-3), 0.2),
    "pre-norm, LARS": Setting(PRE, LARS, 0.2),
    "first commit, published optimizer": Setting(FIRST, PUBLISHED.optim, 0.02),
    "first commit, AdamW 1e-3": Setting(FIRST, adamw(1e-3), 0.2),
    "first commit, AdamW 1e-4": Setting(FIRST, adamw(1e-4), 0.2),
    "first commit, SGD 0.03": Setting(FIRST, sgd(0.03), 0.2),
    "first commit, SGD 0.003": Setting(FIRST, sgd(0.003), 0.2),
    "first commit, LARS": Setting(FIRST, LARS, 0.2),
    "first commit, residual 1, AdamW 1e-3": Setting(
        dataclasses.replace(FIRST, residual=1.0), adamw(1e-3), 0.2
    ),
    "first commit, residual 2.1, AdamW 1e-3": Setting(
        dataclasses.replace(FIRST, residual=DEEPNORM), adamw(1e-3), 0.2
    ),
    "first commit, residual 2.1, AdamW 3e-4": Setting(
        dataclasses.replace(FIRST, residual=DEEPNORM), adamw(3e-4), 0.2
    ),
    "later variant, AdamW 1e-3": Setting(LATER, adamw(1e-3), 0.1),
    "later variant, LARS": Setting(LATER, LARS, 0.1),
    "TransFusion, AdamW 1e-3": Setting(
        HeadConfig(name="transfusion"), adamw(1e-3), 0.2, "affinity"
    ),
    "TransFusion, NT-Xent, AdamW 1e-3": Setting(HeadConfig(name="transfusion"), adamw(1e-3), 0.2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=2_500, help="images of each split")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=128)
    flags = parser.parse_args()
    images = open_images(DataConfig(spec=flags.data, limit=flags.limit))
    print("| setting | loss (flat) | contrastive accuracy (chance) | rank of z | k-NN on h |")
    print("|---|---:|---:|---:|---:|")
    for name, setting in SETTINGS.items():
        print(f"| {name} | {_ended(name, setting, images, flags)} |", flush=True)


def _ended(name: str, setting: Setting, images: Splits, flags: argparse.Namespace) -> str:
    """The cells of one row of the table."""
    path = flags.out / "".join(c if c.isalnum() or c in ".-" else "-" for c in name)
    if not (path / "results.json").exists():
        config = PretrainConfig(
            data=DataConfig(spec=flags.data, limit=flags.limit),
            encoder=EncoderConfig(name=SMALL_RESNET, stem="small-strided"),
            head=setting.head,
            optim=setting.optim,
            temperature=setting.temperature,
            objective=setting.objective,
            epochs=flags.epochs,
            batch_size=flags.batch_size,
            knn_every=0,
        )
        try:
            if path.exists():
                resume(path, images, quiet=True)
            else:
                pretrain(config, path, images, quiet=True)
        except UserError as error:
            _, when, *_ = str(error).split("; ")
            return f"diverged: {when.partition(',')[0]} | | |"
        asked = EvaluateConfig(protocols=("knn",), taps=("h",), baselines=False)
        evaluate(path, config=asked, images=images)
    run = Run.open(path)
    last = run.metrics()[-1]
    rows = 2 * flags.batch_size - 1
    flat = math.log(rows) if setting.objective == "nt-xent" else math.log(2)
    knn = run.sections[0].results["knn/h"].value
    return (
        f"{last['loss']:.2f} ({flat:.2f}) | "
        f"{last['contrastive_accuracy']:.3f} ({1 / rows:.3f}) | {last['rank_z']:.0f} | {knn:.3f}"
    )


if __name__ == "__main__":
    main()
