"""Comparing heads: the same encoder, images, steps and draws under each, then the same probes."""

import dataclasses
import logging
from dataclasses import dataclass, field
from pathlib import Path

from headwise import augment, heads
from headwise.comparison.baselines import Baselines, baselines
from headwise.comparison.duration import remaining
from headwise.comparison.findings import MeasuredRuns, findings
from headwise.comparison.summary import Measured, analyse, measured_here
from headwise.config import check_fields
from headwise.data import Given, Splits, given_splits, open_images
from headwise.data.record import described, located, write_record
from headwise.data.split import labelled_splits, test_images
from headwise.errors import UserError
from headwise.evaluation.probes.labels import chance, labelled
from headwise.evaluation.statistics.crossed import FEWEST_SEEDS
from headwise.files import Json, write_json
from headwise.heads import COMPARED, HeadName
from headwise.model.build import build_model
from headwise.model.config import PretrainConfig, check_count, resolve
from headwise.model.config_file import config_json, has_old_heads, read_config
from headwise.model.own_parts import entrusted, handed_of, keep_code
from headwise.model.trained import identify, load_config
from headwise.own_code import Handed
from headwise.pretraining import kept
from headwise.pretraining.loop import pretrain, resume
from headwise.pretraining.monitoring import check_ahead
from headwise.report import write_report
from headwise.report.reading.training import too_short
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
    seeds: int = FEWEST_SEEDS
    """Runs of each head, with seeds from `seed` on."""
    scratch: bool = True
    """Also train the encoder from scratch on the same labels, as a baseline."""

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


def _begin(config: CompareConfig, out: Path, images: Splits, quiet: bool) -> Json:
    write_record(out, images)
    write_json(out / "config.json", config_json(config))
    keep_code(config.pretrain, out)
    views = augment.resolve(config.pretrain.augment, images.train)
    augment.write_sheet(images.train, views, out / "views.png", config.pretrain.seed)
    return _compare(config, out, images, quiet)


def resume_comparison(
    out: str | Path,
    images: Splits | None = None,
    *,
    data: str | None = None,
    handed: Handed | None = None,
    quiet: bool = False,
) -> Json:
    """Go on with a comparison that stopped: finished runs are kept. The images must be those that
    it began with, as in `resume`. `handed`: the own code that it began with."""
    out = Path(out)
    path = out / "config.json"
    if not path.is_file():
        raise UserError(f"--resume must be a comparison's directory; {out} has no config.json")
    config = read_config(CompareConfig, path)
    pretrain = entrusted(config.pretrain, handed or Handed(), out)
    config = dataclasses.replace(config, pretrain=pretrain)
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
        if not all((_path(out, name, seed) / "config.json").exists() for seed in seeds)
    ]
    if missing and has_old_heads(out / "config.json"):
        raise UserError(
            f"the heads of {out} must be those of the older headwise that began it; its missing "
            f"runs of {' and '.join(missing)} would have today's; finish it with that version, or "
            "begin another comparison"
        )


def _compare(config: CompareConfig, out: Path, images: Splits, quiet: bool) -> Json:
    evaluated = labelled_splits(images)
    identity = identify(evaluated, config.pretrain.data)
    first = config.pretrain.seed
    runs: dict[str, list[Run]] = {name: [] for name in config.heads}
    measured: dict[str, list[Measured]] = {name: [] for name in config.heads}
    bases: list[Baselines] = []
    seed_is_done = remaining([] if quiet else _missing(config, out), images.train, config.seeds)
    for seed in range(first, first + config.seeds):
        for name in config.heads:
            run = _finished(_run_config(config, name, seed), _path(out, name, seed), images, quiet)
            runs[name].append(run)
            measured[name].append(_measured(run, evaluated, identity, with_map=seed == first))
        bases.append(
            baselines(
                load_config(runs[config.heads[0]][-1]),
                evaluated,
                out / f"baselines-seed{seed}.npz",
                scratch=config.scratch,
                first=out / f"baselines-seed{first}.npz",
            )
        )
        if not quiet:
            seed_is_done(seed)
    found = MeasuredRuns(runs=runs, measured=measured, baselines=bases, data=identity)
    summary = _described(config, evaluated, runs) | {"section": identity.key}
    summary |= findings(found, summary["classes"])
    write_json(out / "summary.json", summary)
    write_report(out)
    return summary


def _missing(config: CompareConfig, out: Path) -> list[PretrainConfig]:
    """The runs that are not trained yet."""
    return [
        _run_config(config, name, seed)
        for seed in range(config.pretrain.seed, config.pretrain.seed + config.seeds)
        for name in config.heads
        if not Run(_path(out, name, seed)).done
    ]


def _measured(run: Run, images: Splits, identity: DataIdentity, *, with_map: bool) -> Measured:
    """What is known of h and z of a run; measured now where it was not."""
    seed = load_config(run).seed
    if not measured_here(run, identity, seed):
        if run.section(identity) is not None:
            log.info("%s is measured again, with the comparison's seed", run.path)
        analyse(run, images, with_map=with_map)
    return measured_here(run, identity, seed)


def _finished(config: PretrainConfig, path: Path, images: Splits, quiet: bool) -> Run:
    """The run of this config, pretrained to its end."""
    if path.exists() and any(path.iterdir()):
        _complete(path, config, images)
        return resume(Run(path, handed_of(config)), images, quiet=quiet)
    return pretrain(config, path, images, quiet=quiet)


def _complete(path: Path, config: PretrainConfig, images: Splits) -> None:
    """Write the config.json of a run that was killed before it had one."""
    if not (path / "config.json").exists():
        write_json(path / "config.json", config_json(resolve(config, images.train)))


def _described(config: CompareConfig, images: Splits, runs: dict[str, list[Run]]) -> Json:
    """What was compared."""
    evaluated = test_images(images)
    described: Json = {
        "seeds": config.seeds,
        "data": config.pretrain.data.spec,
        "images": len(images.train),
        "epochs": config.pretrain.epochs,
        "classes": list(evaluated.classes),
        "short": too_short(runs[config.heads[0]][0].metrics()),
    }
    if labelled(images):
        labels, truth = images.train.labels, evaluated.labels
        assert labels is not None, "labelled images have labels"
        assert truth is not None, "labelled images have labels"
        described |= {"n_test": len(evaluated), "chance": chance(labels, truth)}
    return described


def _path(out: Path, name: HeadName, seed: int) -> Path:
    return out / f"{name}-seed{seed}"


def _run_config(config: CompareConfig, name: HeadName, seed: int) -> PretrainConfig:
    head = heads.for_head(config.pretrain.head, name)
    return dataclasses.replace(config.pretrain, head=head, seed=seed)
