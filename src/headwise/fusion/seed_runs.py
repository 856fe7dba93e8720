"""Several runs of one head, which differ in their seed alone: measured alike, judged together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from headwise.config import from_dict, to_dict
from headwise.data import DataConfig, Given
from headwise.data.record import read_record
from headwise.errors import UserError
from headwise.files import read_object, write_json
from headwise.fusion.batches import labelled_images
from headwise.fusion.config import FusionConfig
from headwise.fusion.lab import measure_fusion
from headwise.fusion.over_seeds import HeadOverSeeds, judge_seeds
from headwise.heads import ResolvedHead
from headwise.model.config import ONLY_ROUNDING, ResolvedConfig
from headwise.model.trained import load_config, open_trained
from headwise.runs.directory import Run, refuse_existing
from headwise.runs.lock import writing

SEEDS_FILE = "fusion-seeds.json"

_VERSION = 1
_FREE = ("seed", "data.spec", "data.cache", "data.resident_mib", *ONLY_ROUNDING)
"""Settings that may differ: the seed, and what does not change what is computed. The images are
compared by their fingerprint, wherever they lie."""
_NAMED = 4
"""As many differences are named in an error."""


@dataclass(frozen=True, kw_only=True)
class FusionOverSeeds:
    """What runs of one head show about fusion: fusion-seeds.json."""

    version: int = _VERSION
    head: ResolvedHead
    runs: tuple[str, ...]
    """Their directories, in the order of `seeds`."""
    seeds: tuple[int, ...]
    spec: str
    """The images that fusion was measured on."""
    split: str
    batch_size: int
    batches: int
    found: HeadOverSeeds


def fusion_over_seeds(
    runs: Sequence[str | Path | Run],
    data: DataConfig | str | Path | None = None,
    config: FusionConfig | None = None,
    *,
    out: str | Path | None = None,
    images: Given | None = None,
    accept_changed_data: bool = False,
    quiet: bool = True,
) -> FusionOverSeeds:
    """Measure the fusion of runs that differ in their seed alone, as `measure_fusion` does, and
    judge them together. What is measured already with the same settings is kept. The result is
    written into the new directory `out`, as fusion-seeds.json.

    Raises `UserError` for fewer than two runs, runs of the same seed or of different settings, and
    a head without attention.
    """
    config = config or FusionConfig()
    if out is not None:
        refuse_existing(Path(out), resumable=False)
    opened = [Run.open(run) for run in runs]
    configs = [load_config(run) for run in opened]
    _refuse_different(opened, configs)
    first = open_trained(
        opened[0],
        data,
        images,
        accept_changed_data=accept_changed_data,
        device=config.device,
        check=partial(labelled_images, split=config.split),
    )
    if not first.model.head.block_taps:
        raise UserError(
            f"fusion over seeds needs a head with attention over the batch; {configs[0].head.name} "
            "has none; give runs of a transformer head"
        )
    for run in opened:
        measure_fusion(run, config=config, images=first.images, quiet=quiet)
    result = _judged(opened, configs)
    if out is not None:
        with writing(Path(out)):
            write_json(Path(out) / SEEDS_FILE, to_dict(result))
    return result


def _judged(runs: Sequence[Run], configs: Sequence[ResolvedConfig]) -> FusionOverSeeds:
    """What measured runs show together."""
    arrays = [run.fusion_arrays for run in runs]
    return FusionOverSeeds(
        head=configs[0].head,
        runs=tuple(str(run.path) for run in runs),
        seeds=tuple(config.seed for config in configs),
        spec=str(arrays[0]["spec"]),
        split=str(arrays[0]["split"]),
        batch_size=int(arrays[0]["batch_size"]),
        batches=len(arrays[0]["layer_gain"]),
        found=judge_seeds(arrays),
    )


def read_over_seeds(out: Path) -> FusionOverSeeds:
    """Return what fusion-seeds.json in a directory holds."""
    return from_dict(FusionOverSeeds, read_object(out / SEEDS_FILE), str(out / SEEDS_FILE))


def _refuse_different(runs: Sequence[Run], configs: Sequence[ResolvedConfig]) -> None:
    """Raise `UserError` if the runs differ in something else than their seed, or not in it."""
    if len(runs) < 2:
        raise UserError(f"fusion over seeds needs at least two runs; got {len(runs)}")
    by_seed: dict[int, Run] = {}
    for run, config in zip(runs, configs, strict=True):
        if other := by_seed.get(config.seed):
            raise UserError(
                f"fusion over seeds needs runs of different seeds; {other.path} and {run.path} "
                f"both have seed {config.seed}; leave one out"
            )
        by_seed[config.seed] = run
    told = [_told(run, config) for run, config in zip(runs, configs, strict=True)]
    for run, settings in zip(runs, told, strict=True):
        names = [name for name in told[0] if settings.get(name) != told[0][name]]
        names += [name for name in settings if name not in told[0]]
        if names:
            here, there = (
                ", ".join(f"{name} {one.get(name, 'none')}" for name in names[:_NAMED])
                for one in (settings, told[0])
            )
            raise UserError(
                f"fusion over seeds needs runs that differ in their seed alone; {run.path} has "
                f"{here}{', …' * (len(names) > _NAMED)} where {runs[0].path} has {there}; give "
                "runs of one head with the same settings"
            )


def _told(run: Run, config: ResolvedConfig) -> dict[str, object]:
    """What must be alike, by name: the images, and every setting that changes the result."""
    record = read_record(run.path)
    print_of_images = "" if record is None else f" ({record.train.fingerprint[:8]})"
    own = {name: value for name, value in _flat(to_dict(config)) if name not in _FREE}
    return {"images": config.data.spec + print_of_images, **own}


def _flat(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
