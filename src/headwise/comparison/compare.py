"""Comparing heads: the same encoder, images, steps and draws under each, then the same probes."""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headwise import augment
from headwise.comparison.arms import check_arms, config_of, refuse_changed_run, refuse_same
from headwise.comparison.duration import remaining
from headwise.comparison.elsewhere import resume_runs
from headwise.comparison.measuring import Plan, summarise
from headwise.config import check_fields
from headwise.data import Given, Splits, given_splits, open_images
from headwise.data.record import described, located, write_record
from headwise.errors import UserError
from headwise.evaluation.statistics.crossed import FEWEST_SEEDS
from headwise.files import Json, read_object, safe_name, write_json
from headwise.heads import COMPARED
from headwise.model.build import build_model
from headwise.model.config import PretrainConfig, check_count, resolve
from headwise.model.config_file import config_json, has_old_heads, read_config
from headwise.model.own_parts import complete, entrusted, keep_code
from headwise.own_code import Handed
from headwise.pretraining import kept
from headwise.pretraining.finished import finished
from headwise.pretraining.monitoring import check_ahead
from headwise.runs.directory import Run, arm_folder, refuse_existing
from headwise.runs.lock import writing

log = logging.getLogger("headwise")


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """One comparison."""

    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    arms: tuple[str, ...] = COMPARED
    """What is compared: heads, or heads with other settings, written as
    `HEAD:setting=value,setting=value`. The settings under `pretrain.head` are those of the head
    that it names."""
    seeds: int = FEWEST_SEEDS
    """Runs of each arm, with seeds from `seed` on."""
    scratch: bool = True
    """Also train the encoder from scratch on the same labels, as a baseline."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_arms(self.pretrain, self.arms)
        if self.seeds < 1:
            raise UserError(f"--seeds must be at least 1; got {self.seeds}")


def compare(
    config: CompareConfig, out: str | Path, images: Given | None = None, *, quiet: bool = False
) -> Json:
    """Pretrain every arm with every seed, evaluate, and write summary.json and report.html.

    Returns the summary. Every run is a run directory of its own, `ARM-seedN`, under `out`.
    Nothing is written before all arms are known to fit. Errors as in `pretrain`.
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
    _check_ahead(config, config.arms, images)
    with writing(out):
        refuse_existing(out)
        return _begin(config, out, images, quiet)


def _check_ahead(config: CompareConfig, arms: Sequence[str], images: Splits) -> None:
    """What can be known of these arms before any is trained."""
    resolved = {
        arm: resolve(_run_config(config, arm, config.pretrain.seed), images.train)
        for arm in config.arms
    }
    refuse_same(resolved)
    for arm in arms:
        check_ahead(resolved[arm], build_model(resolved[arm]), images.train)


def _begin(config: CompareConfig, out: Path, images: Splits, quiet: bool) -> Json:
    write_record(out, images)
    write_json(out / "config.json", config_json(config))
    keep_code(config.pretrain, out)
    views = augment.resolve(config.pretrain.augment, images.train)
    augment.write_sheet(images.train, views, out / "views.png", config.pretrain.seed)
    return _compare(config, out, images, quiet)


def resume_comparison(
    out: str | Path,
    images: Given | None = None,
    *,
    data: str | None = None,
    handed: Handed | None = None,
    arms: Sequence[str] = (),
    seeds: int | None = None,
    quiet: bool = False,
) -> Json:
    """Go on with a comparison that stopped, or let one grow: by `arms` that it does not have, and
    to a larger number of `seeds`. Finished runs are kept. The images must be those that it began
    with, as in `resume`, and every run must have the settings that config.json says.
    `handed`: the own code that it began with."""
    out = Path(out)
    path = out / "config.json"
    if not path.is_file():
        raise UserError(f"--resume must be a comparison's directory; {out} has no config.json")
    if "runs" in read_object(path):
        if arms or seeds is not None:
            raise UserError(
                f"{out} compares runs that were finished before it; it cannot grow; compare them "
                "with others by --runs and another --out"
            )
        return resume_runs(out, images, data, handed)
    config = read_config(CompareConfig, path)
    pretrain = complete(entrusted(config.pretrain, handed or Handed(), out))
    config = dataclasses.replace(config, pretrain=pretrain)
    grown = _grown(config, arms, seeds)
    _refuse_other_heads(grown, out)
    with writing(out):
        images = open_images(located(out, config.pretrain.data, data)) if images is None else images
        images = given_splits(images)
        kept.refuse_other_images(out, images)
        for arm in config.arms:
            refuse_changed_run(out, safe_name(arm), config_of(config.pretrain, arm), images.train)
        if grown.arms != config.arms:
            _check_ahead(grown, grown.arms[len(config.arms) :], images)
        kept.keep_record(out, images, data, begun=True)
        if grown != config:
            begun = {key: value for key, value in read_object(path).items() if key != "heads"}
            write_json(path, {**begun, "arms": list(grown.arms), "seeds": grown.seeds})
        return _compare(grown, out, images, quiet)


def _grown(config: CompareConfig, arms: Sequence[str], seeds: int | None) -> CompareConfig:
    """With these arms too, and with so many seeds."""
    if seeds is not None and seeds < config.seeds:
        raise UserError(
            f"--seeds must be at least the {config.seeds} that the comparison has; got {seeds}"
        )
    every = tuple(dict.fromkeys([*config.arms, *arms]))
    return dataclasses.replace(config, arms=every, seeds=seeds or config.seeds)


def _refuse_other_heads(config: CompareConfig, out: Path) -> None:
    """Raise `UserError` if runs are missing of a head that was another one in the version that
    began the comparison. config.json has the old settings of the head that it names."""
    missing = [
        arm
        for arm in config.arms
        if arm.partition(":")[0] in {"linear", "mlp"} - {config.pretrain.head.name}
        if not all((arm_folder(out, arm, seed) / "config.json").exists() for seed in _seeds(config))
    ]
    if missing and has_old_heads(out / "config.json"):
        raise UserError(
            f"the heads of {out} must be those of the older headwise that began it; its missing "
            f"runs of {' and '.join(missing)} would have today's; finish it with that version, or "
            "begin another comparison"
        )


def _compare(config: CompareConfig, out: Path, images: Splits, quiet: bool) -> Json:
    def run(arm: str, seed: int) -> Run:
        return finished(_run_config(config, arm, seed), arm_folder(out, arm, seed), images, quiet)

    plan = Plan(
        arms=config.arms,
        seeds=tuple(_seeds(config)),
        run=run,
        data=config.pretrain.data,
        scratch=config.scratch,
    )
    missing = {} if quiet else _missing(config, out)
    say = remaining(missing, images.train, config.seeds)
    return summarise(plan, out, images, (lambda _: None) if quiet else say)


def _missing(config: CompareConfig, out: Path) -> dict[str, list[PretrainConfig]]:
    """The runs of every arm that are not trained yet."""
    runs = {
        arm: [
            _run_config(config, arm, seed)
            for seed in _seeds(config)
            if not Run(arm_folder(out, arm, seed)).done
        ]
        for arm in config.arms
    }
    return {arm: some for arm, some in runs.items() if some}


def _seeds(config: CompareConfig) -> range:
    return range(config.pretrain.seed, config.pretrain.seed + config.seeds)


def _run_config(config: CompareConfig, arm: str, seed: int) -> PretrainConfig:
    return dataclasses.replace(config_of(config.pretrain, arm), seed=seed)
