"""Comparing heads: the same encoder, images, steps and draws under each, then the same probes."""

import dataclasses
import logging
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from headwise import augment, heads
from headwise.comparison.summary import PROTOCOLS, TAPS, Measured, analyse, measured_here
from headwise.config import check_fields
from headwise.data import Given, Splits, given_splits, open_images
from headwise.data.record import described, located, write_record
from headwise.data.split import labelled_splits
from headwise.errors import UserError
from headwise.evaluation.config import EvaluateConfig, protocol
from headwise.evaluation.extracted import baseline_tables
from headwise.evaluation.probes.labels import chance, labelled
from headwise.evaluation.protocols.description import TapFeatures
from headwise.evaluation.statistics.tests import paired_permutation_test
from headwise.files import Json, read_object, write_json
from headwise.heads import COMPARED, HeadName
from headwise.model.build import build_model
from headwise.model.config import PretrainConfig, check_count, resolve
from headwise.model.config_file import config_json, has_old_heads, read_config
from headwise.model.extraction import extract_config
from headwise.model.trained import identify, load_config
from headwise.pretraining import kept
from headwise.pretraining.loop import pretrain, resume
from headwise.pretraining.monitoring import check_ahead
from headwise.report import write_report
from headwise.report.prose.comparison import learned
from headwise.report.reading.summary import summary_of
from headwise.runs.directory import Run, refuse_existing
from headwise.runs.lock import writing
from headwise.runs.sections import DataIdentity

log = logging.getLogger("headwise")


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """One comparison of heads."""

    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    heads: tuple[HeadName, ...] = COMPARED
    """Heads to compare. The settings under `head` are those of the head it names."""
    seeds: int = 1
    """Runs of each head, with seeds from `seed` on."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.heads or len(set(self.heads)) < len(self.heads):
            raise UserError(f"--heads must name heads, each once; got {' '.join(self.heads)!r}")
        if self.seeds < 1:
            raise UserError(f"--seeds must be at least 1; got {self.seeds}")


def compare(
    config: CompareConfig, out: str | Path, images: Given | None = None, *, quiet: bool = False
) -> Json:
    """Pretrain under every head and seed, evaluate, and write summary.json and report.html.

    Returns the summary. Every run is a run directory of its own, `HEAD-seedN`, under `out`.
    Nothing is written before all heads are known to fit. Errors as in `pretrain`.
    """
    out = Path(out)
    refuse_existing(out)
    if images is None:
        images = open_images(
            config.pretrain.data, check=lambda listed: check_count(config.pretrain, listed.train)
        )
    images = given_splits(images)
    data = described(images, config.pretrain.data)
    config = dataclasses.replace(config, pretrain=dataclasses.replace(config.pretrain, data=data))
    for name in config.heads:
        resolved = resolve(_run_config(config, name, config.pretrain.seed), images.train)
        check_ahead(resolved, build_model(resolved), images.train)
    with writing(out):
        refuse_existing(out)
        return _begin(config, out, images, quiet)


def _begin(config: CompareConfig, out: Path, images: Splits, quiet: bool) -> dict[str, Any]:
    write_record(out, images)
    write_json(out / "config.json", config_json(config))
    views = augment.resolve(config.pretrain.augment, images.train)
    augment.write_sheet(images.train, views, out / "views.png", config.pretrain.seed)
    return _compare(config, out, images, quiet)


def resume_comparison(
    out: str | Path, images: Splits | None = None, *, data: str | None = None, quiet: bool = False
) -> Json:
    """Go on with a comparison that stopped: finished runs are kept. The images must be those that
    it began with, as in `resume`."""
    out = Path(out)
    path = out / "config.json"
    if not path.is_file():
        raise UserError(f"--resume must be a comparison's directory; {out} has no config.json")
    config = read_config(CompareConfig, path)
    _refuse_other_heads(config, out)
    with writing(out):
        images = images or open_images(located(out, config.pretrain.data, data))
        kept.refuse_other_images(out, images)
        kept.keep_record(out, images, data, begun=True)
        return _compare(config, out, images, quiet)


def _refuse_other_heads(config: CompareConfig, out: Path) -> None:
    """Raise `UserError` if runs are missing of a head that was another one in the version that
    began the comparison. config.json has the old settings of the head that it names."""
    seeds = range(config.pretrain.seed, config.pretrain.seed + config.seeds)
    missing = [
        name
        for name in ("linear", "mlp")
        if name in config.heads and name != config.pretrain.head.name
        if not all((out / f"{name}-seed{seed}" / "config.json").exists() for seed in seeds)
    ]
    if missing and has_old_heads(out / "config.json"):
        raise UserError(
            f"the heads of {out} must be those of the older headwise that began it; its missing "
            f"runs of {' and '.join(missing)} would have today's; finish it with that version, or "
            "begin another comparison"
        )


def _compare(config: CompareConfig, out: Path, images: Splits, quiet: bool) -> Json:
    by_seed, evaluated = [], labelled_splits(images)
    identity = identify(evaluated, config.pretrain.data)
    for seed in range(config.pretrain.seed, config.pretrain.seed + config.seeds):
        runs = {}
        for name in config.heads:
            path = out / f"{name}-seed{seed}"
            if path.exists() and any(path.iterdir()):
                _complete(path, _run_config(config, name, seed), images)
                run = resume(path, images, quiet=quiet)
            else:
                run = pretrain(_run_config(config, name, seed), path, images, quiet=quiet)
            if not measured_here(run, identity, seed):
                if run.section(identity) is not None:
                    log.info("%s is measured again, with the comparison's seed", path)
                analyse(run, evaluated, with_map=seed == config.pretrain.seed)
            runs[name] = run
        measured = {name: measured_here(run, identity, seed) for name, run in runs.items()}
        rows = {name: _row(run, measured[name]) for name, run in runs.items()}
        factors = {name: _factors(results) for name, results in measured.items()}
        baselines = _baselines(runs[config.heads[0]], evaluated, out / f"baselines-seed{seed}.json")
        by_seed.append({"heads": rows, "baselines": baselines, "factors": factors})
    summary = _summary(config, evaluated, by_seed) | {
        "images": len(images.train),
        "section": identity.key,
    }
    if config.seeds == 1:
        summary["p_values"] = _p_values(runs, identity)
    write_json(out / "summary.json", summary)
    write_report(out)
    return summary


def _complete(path: Path, config: PretrainConfig, images: Splits) -> None:
    """Write the config.json of a run that was killed before it had one."""
    if not (path / "config.json").exists():
        write_json(path / "config.json", config_json(resolve(config, images.train)))


def _row(run: Run, measured: Measured) -> dict[str, float]:
    """A run's line of the table."""
    head = build_model(load_config(run)).head
    return {
        **{key: result.value for key, result in measured.items()},
        "parameters": sum(p.numel() for p in head.parameters() if p.requires_grad),
        "seconds": run.metrics()[-1]["seconds"],
    }


def _p_values(
    runs: dict[HeadName, Run], identity: DataIdentity
) -> dict[str, dict[str, dict[str, float]]]:
    """The p-value of a paired test on the test images, for the accuracies at `h` of every two
    heads: by result, head and other head."""
    arrays = {head: run.arrays(identity) for head, run in runs.items()}
    keys = [f"each/{protocol}/h" for protocol in PROTOCOLS]
    return {
        key.removeprefix("each/"): {
            a: {
                b: paired_permutation_test(
                    *(torch.from_numpy(arrays[head][key]).double() for head in (a, b)), seed=0
                ).p_value
                for b in runs
                if b != a
            }
            for a in runs
        }
        for key in keys
        if all(key in of_run for of_run in arrays.values())
    }


def _factors(measured: Measured) -> dict[str, dict[str, float]]:
    """The score of each nuisance factor at each tap; empty where none are known."""
    means = {tap: measured.get(f"factors/{tap}") for tap in TAPS}
    return {tap: result.settings["scores"] for tap, result in means.items() if result}


def _baselines(run: Run, images: Splits, path: Path) -> dict[str, dict[str, float]]:
    """Raw pixels and the untrained encoder of this seed, computed once and kept at `path`."""
    if not labelled(images):
        return {}
    if not path.exists():
        config = load_config(run)
        features = baseline_tables(config, images, extract_config(config))
        values = {
            value.key: {"value": value.value, "n": value.n}
            for name in PROTOCOLS
            for tap, (train, test) in features.items()
            for value in protocol(name, EvaluateConfig()).at_tap(
                TapFeatures(tap, train, test, images, config.seed)
            )
        }
        write_json(path, values)
    values = {name: result["value"] for name, result in read_object(path).items()}
    return {
        "pixels": {name: values[f"{name}/pixels"] for name in PROTOCOLS},
        "untrained": {f"{name}/h": values[f"{name}/untrained"] for name in PROTOCOLS},
    }


def _summary(config: CompareConfig, images: Splits, by_seed: list[Json]) -> Json:
    """The whole comparison: means over the seeds, and their standard deviations."""
    mean = _over_seeds(by_seed, statistics.fmean)
    evaluated = images.train if images.test is None else images.test
    summary: Json = {
        **mean,
        "seeds": config.seeds,
        "data": config.pretrain.data.spec,
        "images": len(images.train),
        "epochs": config.pretrain.epochs,
        "classes": list(evaluated.classes),
    }
    typed = summary_of(summary)
    summary["learned"] = {name: learned(typed, name) for name in typed.heads}
    if config.seeds > 1:
        summary["std"] = _over_seeds(by_seed, statistics.stdev)
    if not any(mean["factors"].values()):
        del summary["factors"]
    if labelled(images):
        labels, truth = images.train.labels, evaluated.labels
        assert labels is not None, "labelled images have labels"
        assert truth is not None, "labelled images have labels"
        summary["n_test"] = len(evaluated)
        summary["chance"] = chance(labels, truth)
    return summary


def _over_seeds(tables: list[Any], combine: Callable[[list[float]], float]) -> Any:
    """Combine numbers that stand at the same place of several nested dictionaries."""
    if isinstance(tables[0], dict):
        return {key: _over_seeds([table[key] for table in tables], combine) for key in tables[0]}
    return combine(tables)


def _run_config(config: CompareConfig, name: HeadName, seed: int) -> PretrainConfig:
    head = heads.for_head(config.pretrain.head, name)
    return dataclasses.replace(config.pretrain, head=head, seed=seed)
