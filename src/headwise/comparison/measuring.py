"""From the runs of every arm to summary.json and the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headwise.comparison.arms import differing, own_settings
from headwise.comparison.baselines import Baselines, baselines
from headwise.comparison.findings import MeasuredRuns, findings
from headwise.comparison.summary import Measured, analyse
from headwise.data import DataConfig, Splits
from headwise.data.split import labelled_splits, test_images
from headwise.evaluation.probes.labels import chance, labelled
from headwise.files import Json, write_json
from headwise.model.config import ResolvedConfig
from headwise.model.trained import identify, load_config
from headwise.report import write_report
from headwise.report.reading.training import too_short
from headwise.runs.directory import Run
from headwise.runtime import hardware


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a comparison is made from."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    run: Callable[[str, int], Run]
    """The finished run of an arm and a seed, pretrained now where it is not."""
    data: DataConfig
    """How the images were opened."""
    scratch: bool
    """Whether to train from scratch too."""


def summarise(plan: Plan, out: Path, images: Splits, seed_is_done: Callable[[int], None]) -> Json:
    """Measure every run and the baselines, seed by seed, and write summary.json and the page."""
    evaluated = labelled_splits(images)
    identity, first = identify(evaluated, plan.data), plan.seeds[0]
    runs: dict[str, list[Run]] = {arm: [] for arm in plan.arms}
    measured: dict[str, list[Measured]] = {arm: [] for arm in plan.arms}
    bases: list[Baselines] = []
    for seed in plan.seeds:
        for arm in plan.arms:
            run = plan.run(arm, seed)
            runs[arm].append(run)
            measured[arm].append(analyse(run, evaluated, identity, with_map=seed == first))
        bases.append(
            baselines(
                on_this_machine(load_config(runs[plan.arms[0]][-1])),
                evaluated,
                out / f"baselines-seed{seed}.npz",
                scratch=plan.scratch,
                first=out / f"baselines-seed{first}.npz",
                started=started([some[-1] for some in runs.values()]),
            )
        )
        seed_is_done(seed)
    found = MeasuredRuns(runs=runs, measured=measured, baselines=bases, data=identity)
    summary = _described(plan, out, evaluated, runs) | {"section": identity.key}
    summary |= findings(found, summary["classes"])
    write_json(out / "summary.json", summary)
    write_report(out)
    return summary


def started(runs: Sequence[Run]) -> Run | None:
    """The first of these runs that has start weights; None where they have different ones."""
    weights = {run: own_settings(load_config(run)).get("encoder.weights") for run in runs}
    known = {digest for digest in weights.values() if digest}
    return next((run for run in runs if weights[run]), None) if len(known) == 1 else None


def on_this_machine(config: ResolvedConfig) -> ResolvedConfig:
    """For a run of a device that is not here: on the one that is."""
    device = hardware.resolve_device(hardware.available(config.device))
    if device == config.device:
        return config
    precision = hardware.resolve_precision("auto", device)
    return replace(config, device=device, precision=precision)


def _described(plan: Plan, out: Path, images: Splits, runs: dict[str, list[Run]]) -> Json:
    """What was compared."""
    evaluated = test_images(images)
    configs = [load_config(some[0]) for some in runs.values()]
    epochs = {config.epochs for config in configs}
    described: Json = {
        "seeds": len(plan.seeds),
        "data": plan.data.spec,
        "images": len(images.train),
        "epochs": epochs.pop() if len(epochs) == 1 else None,
        "classes": list(evaluated.classes),
        "short": too_short(runs[plan.arms[0]][0].metrics()),
        "differ": differing([own_settings(config) for config in configs]),
        "runs": {
            arm: dict(
                zip(map(str, plan.seeds), (_place(run.path, out) for run in some), strict=True)
            )
            for arm, some in runs.items()
        },
    }
    if labelled(images):
        labels, truth = images.train.labels, evaluated.labels
        assert labels is not None, "labelled images have labels"
        assert truth is not None, "labelled images have labels"
        described |= {"n_test": len(evaluated), "chance": chance(labels, truth)}
    return described


def _place(run: Path, out: Path) -> str:
    """Where a run is, as seen from the comparison if it is in it."""
    return str(run.relative_to(out) if run.is_relative_to(out) else run.absolute())
