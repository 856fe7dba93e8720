"""Run every protocol on the same encoder, pretrained under several heads. Print Markdown tables and
tests of the papers' claims, and write a report into every run directory.

    python examples/protocols.py --data IMAGES --out runs/protocols

Finished runs are kept: call it again to continue after an interruption.
"""

import argparse
from pathlib import Path

import torch

from headwise.data import DataConfig, Splits, open_images
from headwise.encoders.build import SMALL_RESNET, EncoderConfig
from headwise.evaluation.config import EvaluateConfig
from headwise.evaluation.evaluate import evaluate
from headwise.evaluation.protocols.finetune import FinetuneConfig
from headwise.evaluation.protocols.linear_sgd import LinearSgdConfig
from headwise.evaluation.protocols.transfer import TransferConfig
from headwise.evaluation.statistics.tests import paired_permutation_test
from headwise.heads import HeadConfig, HeadName
from headwise.model.config import PretrainConfig
from headwise.pretraining.loop import pretrain, resume
from headwise.report import write_run_report
from headwise.runs.directory import Run
from headwise.runs.results import Result

TRANSFORMATIONS = ("grey", "rotation", "noise", "sobel")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heads", nargs="+", default=["identity", "linear", "mlp", "transformer"])
    parser.add_argument("--limit", type=int, default=5_000, help="images of each split")
    parser.add_argument("--epochs", type=int, default=30, help="of pretraining")
    parser.add_argument("--targets", nargs="*", default=[], help="NAME=IMAGES of transfer")
    parser.add_argument("--seeds", type=int, default=1, help="of the evaluation")
    flags = parser.parse_args()
    images = open_images(DataConfig(spec=flags.data, limit=flags.limit))
    runs = {}
    for head in flags.heads:
        runs[head] = pretrained(head, images, flags)
        if not (runs[head].path / "report.html").exists():
            evaluate(runs[head].path, config=settings(flags), images=images)
            write_run_report(runs[head].path)
    print("\n\n".join([table(runs), "\n".join(f"- {claim}" for claim in claims(runs))]))


def pretrained(head: HeadName, images: Splits, flags: argparse.Namespace) -> Run:
    path = flags.out / head
    if path.exists():
        return resume(path, images)
    config = PretrainConfig(
        data=DataConfig(spec=flags.data, limit=flags.limit),
        encoder=EncoderConfig(name=SMALL_RESNET, stem="small-strided"),
        head=HeadConfig(name=head),
        epochs=flags.epochs,
        knn_every=0,
    )
    return pretrain(config, path, images)


def settings(flags: argparse.Namespace) -> EvaluateConfig:
    """All protocols. Those that train take fewer steps than in the papers, to suit two cores."""
    return EvaluateConfig(
        protocols=("all",),
        taps=("all",),
        seeds=flags.seeds,
        linear_sgd=LinearSgdConfig(epochs=30),
        finetune=FinetuneConfig(epochs=5, scratch_epochs=10, lrs=(0.1, 1.0)),
        transfer=TransferConfig(targets=tuple(flags.targets), limit=flags.limit, lrs=(0.1, 1.0)),
    )


def table(runs: dict[str, Run]) -> str:
    """One row for each value, one column for each head."""
    results = {head: run.sections[0].results for head, run in runs.items()}
    names = list(dict.fromkeys(name for found in results.values() for name in found))
    lines = [
        f"| value | chance | {' | '.join(runs)} |",
        "|---|" + "---:|" * (1 + len(runs)),
    ]
    for name in names:
        chance = next((found[name].chance for found in results.values() if name in found), None)
        cells = [_cell(found.get(name)) for found in results.values()]
        lines.append(
            f"| {name} | {'' if chance is None else f'{chance:.3f}'} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    value = f"{result.value:.3f}"
    if result.interval is None:
        return value
    low, high = result.interval
    return f"{value} [{low:.3f}, {high:.3f}]"


def claims(runs: dict[str, Run]) -> list[str]:
    """The papers' claims, each with a paired test on the test images."""
    said = []
    for head, run in runs.items():
        if head != "identity":
            said.append(_claim(f"h better than z ({head})", run, "linear/h", run, "linear/z"))
    if "mlp" in runs:
        for weaker in ("identity", "linear"):
            if weaker in runs:
                name = f"non-linear head better than {weaker}"
                said.append(_claim(name, runs["mlp"], "linear/h", runs[weaker], "linear/h"))
    for head, run in runs.items():
        if head != "identity":
            for kind in TRANSFORMATIONS:
                key = f"transformation_{kind}"
                name = f"{kind} more readable from h than from z ({head})"
                said.append(_claim(name, run, f"{key}/h", run, f"{key}/z"))
    return said


def _claim(claim: str, one: Run, better: str, other: Run, worse: str) -> str:
    a, b = (
        torch.from_numpy(run.arrays(run.sections[0].data)[f"each/{key}"]).double()
        for run, key in ((one, better), (other, worse))
    )
    test = paired_permutation_test(a, b, seed=0)
    low, high = test.interval
    confirmed = test.p_value < 0.05 and test.difference > 0
    return (
        f"{claim}: **{'confirmed' if confirmed else 'not confirmed'}**, "
        f"{100 * test.difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}], "
        f"p = {test.p_value:.2g}"
    )


if __name__ == "__main__":
    main()
