"""Is a Transformer head over the batch worth it, and does its attention bring classes together?
Pretrain the same encoder under this head in every context, and under its control heads, with
several seeds and equal steps. Print Markdown tables, and write a report into every run with
attention.

    python examples/deep_fusion.py --data IMAGES --out runs/deep-fusion

Finished runs are kept: call it again to continue after an interruption.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch

from headwise.data import DataConfig, Splits, open_images
from headwise.encoders.build import SMALL_RESNET, EncoderConfig
from headwise.evaluation.config import EvaluateConfig
from headwise.evaluation.evaluate import evaluate
from headwise.evaluation.statistics.tests import paired_permutation_test
from headwise.fusion.config import FusionConfig
from headwise.fusion.lab import measure_fusion
from headwise.fusion.verdict import estimate, judge
from headwise.heads import HeadConfig
from headwise.model.config import PretrainConfig
from headwise.model.optim import OptimConfig
from headwise.model.trained import load_config, load_model
from headwise.pretraining.loop import pretrain, resume
from headwise.report import write_run_report
from headwise.report.prose.fusion import conclusion
from headwise.report.tables.fusion import text_table
from headwise.runs.directory import Run

HEADS = {
    "mlp": HeadConfig(name="mlp"),
    "ffn": HeadConfig(name="ffn"),
    "ffn-matched": HeadConfig(name="ffn-matched"),
    "joint": HeadConfig(name="transformer", context="joint"),
    "per-view": HeadConfig(name="transformer", context="per-view"),
    "self": HeadConfig(name="transformer", context="self"),
    "uniform": HeadConfig(name="transformer", attention="uniform"),
    "twin-masked": HeadConfig(name="transformer", context="twin-masked"),
    "halves": HeadConfig(name="transformer", context="halves"),
}
FOLLOWED = ("joint", "per-view")
"""The heads whose fusion is measured over training, for the first seed."""
MEASURES = ("linear/h", "knn/h", "linear/z", "knn/z")

# What differs between two heads. Everything else is equal.
QUESTIONS = {
    "exchange between images": ("joint", "self"),
    "exchange within a view": ("per-view", "self"),
    "exchange within a half, with half of the negatives": ("halves", "self"),
    "attention instead of plain averaging": ("joint", "uniform"),
    "plain averaging instead of no exchange": ("uniform", "self"),
    "two parts in a block instead of one": ("self", "ffn-matched"),
    "depth and parameters": ("ffn-matched", "mlp"),
    "residuals and parameters": ("ffn-matched", "ffn"),
    "the published claim": ("joint", "ffn"),
    "the claim against SimCLR's head": ("joint", "mlp"),
    "a leak": ("twin-masked", "joint"),
}

Runs = dict[str, list[Run]]
"""By head: one run for each seed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--limit", type=int, default=5_000, help="images of each split")
    parser.add_argument("--epochs", type=int, default=25, help="of pretraining")
    parser.add_argument("--seeds", type=int, default=3)
    flags = parser.parse_args()
    images = open_images(DataConfig(spec=flags.data, limit=flags.limit))
    runs: Runs = {head: [] for head in flags.heads}
    for seed in range(flags.seeds):
        for head in flags.heads:
            run = pretrained(head, seed, images, flags)
            runs[head].append(run)
            measure(run, seed, images, over_training=seed == 0 and head in FOLLOWED)
    tables = [worth(runs), answers(runs), gains(runs)]
    print("\n\n".join([*tables, *(said(found[0]) for found in attending(runs).values())]))


def pretrained(head: str, seed: int, images: Splits, flags: argparse.Namespace) -> Run:
    path = flags.out / f"{head}-{seed}"
    if path.exists():
        return resume(path, images)
    config = PretrainConfig(
        data=DataConfig(spec=flags.data, limit=flags.limit),
        encoder=EncoderConfig(name=SMALL_RESNET, stem="small-strided"),
        head=HEADS[head],
        optim=OptimConfig(name="adamw", lr=1e-3),
        epochs=flags.epochs,
        seed=seed,
        knn_every=0,
        keep_checkpoints=flags.epochs if seed == 0 and head in FOLLOWED else 1,
    )
    return pretrain(config, path, images)


def measure(run: Run, seed: int, images: Splits, *, over_training: bool) -> None:
    """Probe h and z, and run the lab if the head attends. What was measured before is kept."""
    if not any("knn/h" in section.results for section in run.sections):
        asked = EvaluateConfig(protocols=("linear", "knn"), taps=("h", "z"), baselines=seed == 0)
        evaluate(run.path, config=asked, images=images)
    if load_config(run).head.name == "transformer" and not run.fusion_arrays:
        measure_fusion(run.path, config=FusionConfig(over_training=over_training), images=images)
        write_run_report(run.path)


def worth(runs: Runs) -> str:
    """One row for each head: means over seeds in per cent, with standard deviations."""
    lines = [
        f"| head | parameters | {' | '.join(MEASURES)} | contrastive accuracy |",
        "|---|" + "---:|" * (2 + len(MEASURES)),
    ]
    for head, found in runs.items():
        parameters = load_model(found[0])[1].head.parameters()
        size = sum(p.numel() for p in parameters if p.requires_grad)
        cells = [
            _mean_and_spread([run.sections[0].results[name].value for run in found])
            for name in MEASURES
        ]
        cells.append(_mean_and_spread([run.metrics()[-1]["contrastive_accuracy"] for run in found]))
        lines.append(f"| {head} | {size:,} | {' | '.join(cells)} |")
    results = next(iter(runs.values()))[0].sections[0].results
    for name in ("untrained", "pixels"):
        cells = [f"{100 * results[f'{probe}/{name}'].value:.1f}" for probe in ("linear", "knn")]
        lines.append(f"| *{name}* | | {' | '.join(cells)} | | | |")
    return "\n".join(lines)


def answers(runs: Runs) -> str:
    """Paired differences of h in points: a t-interval over seeds, and a permutation test over test
    images, on their means over seeds. A difference is shown if both agree."""
    lines = ["| question | heads | linear/h | knn/h |", "|---|---|---|---|"]
    for question, (a, b) in QUESTIONS.items():
        if a in runs and b in runs:
            cells = [_difference(runs[a], runs[b], name) for name in MEASURES[:2]]
            lines.append(f"| {question} | {a} − {b} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(a: list[Run], b: list[Run], name: str) -> str:
    one, other = (
        torch.from_numpy(
            np.stack([run.arrays(run.sections[0].data)[f"each/{name}"] for run in runs])
        ).double()
        for runs in (a, b)
    )
    by_seed = estimate(100 * (one - other).mean(1).numpy())
    test = paired_permutation_test(one.mean(0), other.mean(0), seed=0)
    shown = test.p_value < 0.05 and (by_seed.low > 0 or by_seed.high < 0)
    return (
        f"{by_seed.mean:+.1f} [{by_seed.low:+.1f}, {by_seed.high:+.1f}], p = {test.p_value:.2g}: "
        f"{'**shown**' if shown else 'not shown'}"
    )


def gains(runs: Runs) -> str:
    """One row for each head that attends: the fusion gain by block, mean over seeds, and at how
    many blocks fusion is shown, for each seed."""
    lines = []
    for head, found in attending(runs).items():
        arrays = [run.fusion_arrays for run in found]
        verdicts = [judge(one) for one in arrays]
        taps = [block.tap for block in verdicts[0].blocks]
        if not lines:
            lines += [f"| head | {' | '.join(taps)} | twin | self | shown |"]
            lines += ["|---|" + "---:|" * (len(taps) + 3)]
        cells = [
            _mean_and_spread([v.blocks[i].gain.mean for v in verdicts], scale=1, digits=2)
            for i in range(len(taps))
        ]
        masses = [
            f"{100 * statistics.fmean(float(one[name].mean()) for one in arrays):.1f} %"
            for name in ("twin_mass", "self_mass")
        ]
        shown = " ".join(f"{sum(b.fuses for b in v.blocks)}/{len(taps)}" for v in verdicts)
        lines.append(f"| {head} | {' | '.join(cells)} | {' | '.join(masses)} | {shown} |")
    return "\n".join(lines)


def said(run: Run) -> str:
    """The conclusion of the lab about a run, and its table."""
    arrays = run.fusion_arrays
    lines = conclusion(arrays, load_config(run).head)
    return "\n".join([f"{run.path.name}:", *lines, "", "```", text_table(arrays), "```"])


def attending(runs: Runs) -> Runs:
    return {
        head: found
        for head, found in runs.items()
        if load_config(found[0]).head.name == "transformer"
    }


def _mean_and_spread(values: list[float], *, scale: float = 100, digits: int = 1) -> str:
    text = f"{scale * statistics.fmean(values):.{digits}f}"
    return f"{text} ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else text


if __name__ == "__main__":
    main()
