"""Every head on the same encoder with five seeds: which one to pretrain with, what BatchNorm does,
and whether a Transformer over the batch is worth it and fuses. Writes the tables of results.md.

    python examples/heads.py --data IMAGES --out runs/heads

Finished runs are kept: call it again to continue after an interruption.
"""

import argparse
import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from headwise.comparison.baselines import baselines
from headwise.comparison.findings import Answers, MeasuredRuns, answers_of
from headwise.data import DataConfig, Splits, open_images
from headwise.encoders.build import SMALL_RESNET, EncoderConfig
from headwise.evaluation.config import EvaluateConfig, ProtocolName
from headwise.evaluation.evaluate import evaluate
from headwise.evaluation.statistics.over_seeds import (
    Difference,
    differences,
    half_width,
    half_width_of_means,
)
from headwise.files import read_object, write_text
from headwise.fusion.seed_runs import fusion_over_seeds
from headwise.heads import HeadConfig
from headwise.model.trained import load_config, read_model
from headwise.pretraining.loop import pretrain, resume
from headwise.pretraining.recipes import small
from headwise.report.tables.fusion import seeds_table
from headwise.report.words import interval_text, percent
from headwise.runs.directory import Run

TRANSFORMER = HeadConfig(name="transformer", width=128, num_heads=8)
HEADS = {
    "mlp": HeadConfig(name="mlp"),
    "linear": HeadConfig(name="linear"),
    "identity-norm": HeadConfig(name="identity", batch_norm=True),
    "identity": HeadConfig(name="identity"),
    "joint": TRANSFORMER,
    "self": dataclasses.replace(TRANSFORMER, context="self"),
    "ffn": HeadConfig(name="ffn"),
    "ffn-matched": HeadConfig(name="ffn-matched", width=128),
    "mlp-plain": HeadConfig(name="mlp", batch_norm=False),
    "linear-plain": HeadConfig(name="linear", batch_norm=False),
    "per-view": dataclasses.replace(TRANSFORMER, context="per-view"),
    "uniform": dataclasses.replace(TRANSFORMER, attention="uniform"),
    "published": dataclasses.replace(TRANSFORMER, depth=10, norm="post", double_projection=True),
    "halves": dataclasses.replace(TRANSFORMER, context="halves"),
    "twin-masked": dataclasses.replace(TRANSFORMER, context="twin-masked"),
}
ATTENDING = ("joint", "per-view", "published")
"""Heads whose fusion is measured."""

# What differs between two heads. Everything else is equal, except for the published claims.
QUESTIONS = {
    "BatchNorm on h": ("identity-norm", "identity"),
    "a linear layer, both with BatchNorm": ("linear", "identity-norm"),
    "a hidden layer, both with BatchNorm": ("mlp", "linear"),
    "a hidden layer, both without BatchNorm": ("mlp-plain", "linear-plain"),
    "BatchNorm in the linear head": ("linear", "linear-plain"),
    "BatchNorm in the MLP": ("mlp", "mlp-plain"),
    "exchange between images": ("joint", "self"),
    "exchange within a view": ("per-view", "self"),
    "attention instead of plain averaging": ("joint", "uniform"),
    "two parts in a block instead of one": ("self", "ffn-matched"),
    "residuals": ("ffn-matched", "ffn"),
    "Deep Fusion's claim": ("joint", "ffn"),
    "its claim as published, ten post-norm blocks": ("published", "ffn"),
    "the Transformer against SimCLR's head": ("joint", "mlp"),
    "a leak": ("twin-masked", "joint"),
}
PROBES = ("linear", "knn", "linear_10", "knn_self")
MEASURES = tuple(f"{probe}/{tap}" for probe in PROBES for tap in ("h", "z"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--limit", type=int, default=5_000, help="images of each split")
    parser.add_argument("--epochs", type=int, default=13, help="of pretraining")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--protocols", nargs="*", default=[], help="beside the probes")
    parser.add_argument("--page", type=Path, help="Markdown whose tables are written again")
    flags = parser.parse_args()
    images = open_images(DataConfig(spec=flags.data, limit=flags.limit))
    runs = {
        head: [pretrained(head, seed, images, flags) for seed in range(flags.seeds)]
        for head in flags.heads
    }
    found = measured(runs, images, (*PROBES, *flags.protocols), flags.out)
    measures = at_both_taps(next(iter(runs.values()))[0])
    answers = answers_of(found, measures)
    tables = {
        "runs": about(runs),
        "heads": heads_table(runs, answers),
        "baselines": differences_table(against_baselines(runs, answers)),
        "questions": differences_table(asked(runs, answers), QUESTIONS),
        "h and z": differences_table(h_and_z(runs, answers, PROBES)),
        "more of h and z": differences_table(
            h_and_z(runs, answers, [name for name in measures if name not in PROBES])
        ),
        "protocols": protocols_table(runs),
        "fusion": fusion_tables(runs, images),
    }
    for name, table in tables.items():
        print(f"{name}:\n\n{table}\n")
    if flags.page:
        write_text(flags.page, written(flags.page.read_text(encoding="utf-8"), tables))


def pretrained(head: str, seed: int, images: Splits, flags: argparse.Namespace) -> Run:
    path = flags.out / f"{head}-seed{seed}"
    if path.exists():
        return resume(path, images)
    config = dataclasses.replace(
        small(),
        data=DataConfig(spec=flags.data, limit=flags.limit),
        encoder=EncoderConfig(name=SMALL_RESNET, stem="small-strided", widths=(16, 32, 64, 128)),
        head=HEADS[head],
        batch_size=128,
        epochs=flags.epochs,
        seed=seed,
        knn_every=0,
    )
    return pretrain(config, path, images)


def measured(
    runs: Mapping[str, Sequence[Run]], images: Splits, protocols: Sequence[ProtocolName], out: Path
) -> MeasuredRuns:
    """Measure h and z of every run, and the baselines of every seed. What was measured is kept."""
    for run in (run for of_head in runs.values() for run in of_head):
        known = {result.protocol for part in run.sections for result in part.results.values()}
        missing = tuple(name for name in protocols if name not in known)
        if missing:
            seed = load_config(run).seed
            wanted = EvaluateConfig(protocols=missing, taps=("h", "z"), baselines=False, seed=seed)
            evaluate(run, config=wanted, images=images)
    one_head = next(iter(runs.values()))
    bases = [
        baselines(
            load_config(run),
            images,
            out / f"baselines-seed{load_config(run).seed}.npz",
            scratch=True,
            first=out / f"baselines-seed{load_config(one_head[0]).seed}.npz",
        )
        for run in one_head
    ]
    return MeasuredRuns(
        runs={head: list(found) for head, found in runs.items()},
        measured={},
        baselines=bases,
        data=one_head[0].sections[0].data,
    )


def at_both_taps(run: Run) -> list[str]:
    """The measures of h and z that have an answer for each test image."""
    arrays = run.arrays(run.sections[0].data)
    names = [name.removeprefix("each/").removesuffix("/h") for name in arrays if name[-2:] == "/h"]
    return [name for name in names if f"each/{name}/h" in arrays and f"each/{name}/z" in arrays]


def about(runs: Mapping[str, Sequence[Run]]) -> str:
    """Commit, hardware, seeds and hours of the runs, from their own files."""
    every = [run for of_head in runs.values() for run in of_head]
    files = [read_object(run.path / "environment.json") for run in every]
    hours = sum(run.metrics()[-1]["seconds"] for run in every) / 3600
    versions = files[0]["versions"]
    seeds = sorted({load_config(run).seed for run in every})
    rows = {
        "commit of the runs": ", ".join(sorted({str(file["commit"])[:7] for file in files})),
        "hardware": f"{files[0]['device_name']}, {files[0]['threads']} thread a run",
        "versions": ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "timm")),
        "seeds": f"{seeds[0]} to {seeds[-1]}, all heads with the same images, draws and steps",
        "hours": f"{hours:.1f} of pretraining, summed over the runs",
    }
    return markdown(["", ""], [list(row) for row in rows.items()])


def heads_table(runs: Mapping[str, Sequence[Run]], answers: Answers) -> str:
    """One row for each head and baseline: per cent, ± half of the 95 % interval."""
    rows = []
    for head, found in runs.items():
        parameters = read_model(found[0])[1].head.parameters()
        size = sum(p.numel() for p in parameters if p.requires_grad)
        accuracy = statistics.fmean(run.metrics()[-1]["contrastive_accuracy"] for run in found)
        cells = [score(answers, key, head) for key in MEASURES]
        rows.append([head, f"{size:,}", *cells, percent(accuracy)])
    for base in ("pixels", "untrained", "scratch"):
        if base in answers["linear/h"]:
            cells = [score(answers, key, base) for key in MEASURES]
            rows.append([f"*{base}*", "", *cells, ""])
    return markdown(["head", "parameters", *MEASURES, "contrastive accuracy"], rows)


def score(answers: Answers, key: str, name: str) -> str:
    if name not in answers[key]:
        return ""
    rows = answers[key][name]
    half = half_width(rows)
    return percent(rows.mean().item()) + (f" ± {percent(half)}" if half else "")


def against_baselines(
    runs: Mapping[str, Sequence[Run]], answers: Answers
) -> dict[str, list[Difference]]:
    pairs = [(head, base) for base in ("pixels", "untrained", "scratch") for head in runs]
    return {"linear/h": differences("linear/h", answers["linear/h"], pairs)}


def asked(runs: Mapping[str, Sequence[Run]], answers: Answers) -> dict[str, list[Difference]]:
    pairs = [pair for pair in QUESTIONS.values() if set(pair) <= set(runs)]
    return {key: differences(key, answers[key], pairs) for key in ("linear/h", "knn/h") if pairs}


def h_and_z(
    runs: Mapping[str, Sequence[Run]], answers: Answers, measures: Sequence[str]
) -> dict[str, list[Difference]]:
    """h − z of every head that has a layer."""
    heads = [head for head, found in runs.items() if read_model(found[0])[1].head.layers]
    found = {}
    for probe in measures:
        at_z = {f"{head}, z": answers[f"{probe}/z"][head] for head in heads}
        rows = {**answers[f"{probe}/h"], **at_z}
        found[probe] = differences(probe, rows, [(head, f"{head}, z") for head in heads])
    return found


def protocols_table(runs: Mapping[str, Sequence[Run]]) -> str:
    """Every value of results.json, mean ± half of the 95 % interval over seeds."""
    by_head = {head: [run.sections[0].results for run in found] for head, found in runs.items()}
    names = dict.fromkeys(name for found in by_head.values() for name in found[0])
    rows = []
    for name in names:
        cells = []
        for found in by_head.values():
            values = [results[name].value for results in found if name in results]
            half = half_width_of_means(values)
            mean = f"{statistics.fmean(values):.3f}" if values else ""
            cells.append(mean + (f" ± {half:.3f}" if half else ""))
        rows.append([f"`{name}`", *cells])
    return markdown(["value", *by_head], rows)


def differences_table(
    found: Mapping[str, Sequence[Difference]],
    questions: Mapping[str, tuple[str, str]] | None = None,
) -> str:
    """One row for each pair, in points with the 95 % interval and the verdict; the adjustment is
    for the rows of a column."""
    names = {pair: question for question, pair in (questions or {}).items()}
    first = next(iter(found.values()), [])
    rows = []
    for place, one in enumerate(first):
        cells = [said(some[place]) for some in found.values()]
        question = [names.get((one.a, one.b), "")] if questions else []
        pair = f"{one.a}: h − z" if one.b == f"{one.a}, z" else f"{one.a} − {one.b}"
        rows.append([*question, pair, *cells])
    return markdown([*(["question"] if questions else []), "heads", *found], rows)


def said(one: Difference) -> str:
    """`+1.2 (0.4 to 2.0), σ 0.5, 7 seeds: shown over 5 seeds`."""
    ends = f" ({interval_text(*one.interval, signed=True)})" if one.interval else ""
    spread = "" if one.seed_deviation is None else f", σ {percent(one.seed_deviation)}"
    words = f"**{one.verdict}**" if one.shown else one.verdict
    return f"{percent(one.value, signed=True)}{ends}{spread}: {words}"


def fusion_tables(runs: Mapping[str, Sequence[Run]], images: Splits) -> str:
    """What the attention of each head shows over its seeds."""
    parts = []
    for head in ATTENDING:
        if len(runs.get(head, ())) > 1:
            result = fusion_over_seeds(runs[head], images=images)
            words = "no block shows fusion"
            if result.found.shown:
                words = f"excess that grows with depth: {result.found.progressive}"
            parts.append(f"{head}: {words}\n\n```\n{seeds_table(result.found).text()}\n```")
    return "\n\n".join(parts)


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def written(page: str, tables: Mapping[str, str]) -> str:
    """The page with these tables between their marks."""
    for name, table in tables.items():
        begin, end = f"<!-- table: {name} -->", f"<!-- end: {name} -->"
        if begin in page:
            before, _, rest = page.partition(begin)
            page = f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
    return page


if __name__ == "__main__":
    main()
