"""What is measured of a finished run of a study, where it is not yet."""

from dataclasses import replace
from pathlib import Path

from headwise.comparison.arms import own_settings
from headwise.comparison.baselines import baselines
from headwise.comparison.measuring import on_this_machine
from headwise.data import Splits
from headwise.data.split import labelled_splits
from headwise.evaluation.config import EvaluateConfig, ProtocolName, protocol
from headwise.evaluation.evaluate import measure
from headwise.features.extract import all_taps
from headwise.fusion.lab import measure_fusion
from headwise.model.build import build_model
from headwise.model.config import ResolvedConfig
from headwise.model.trained import identify, load_config
from headwise.runs.directory import Run
from headwise.runs.lock import Busy, writing
from headwise.runs.sections import Section
from headwise.study.design import Study
from headwise.study.place import digest, pause

_ATTENDS = ("transformer", "transfusion")
_OF_BASELINES = ("augment", "encoder", "epochs", "batch_size", "optim")
"""Settings that a baseline may depend on; a head and its loss are none."""


def measure_cell(study: Study, run: Run, images: Splits) -> None:
    """The study's protocols, with the run's own seed, at those of its taps that the head has."""
    config, images = load_config(run), labelled_splits(images)
    asked = replace(study.evaluate, seed=config.seed)
    if not {*asked.taps} <= {"h", "z", "all"}:
        model = build_model(config)
        there = {*all_taps(model.encoder, model.head)}
        asked = replace(asked, taps=tuple(tap for tap in asked.taps if tap in there))
    section = run.section(identify(images, config.data))
    missing = tuple(name for name in asked.protocols if not _known(name, asked, section))
    if missing:
        measure(run, None, replace(asked, protocols=missing), images=images)
    if study.fusion is not None and config.head.name in _ATTENDS:
        measure_fusion(run, None, study.fusion, images=images)


def _known(name: ProtocolName | str, asked: EvaluateConfig, section: Section | None) -> bool:
    """Whether a protocol was measured as it is asked for."""
    if section is None or name == "all":
        return False
    chosen, seeds = protocol(name, asked), range(asked.seed, asked.seed + asked.seeds)
    found = [
        result
        for result in section.results.values()
        if result.protocol == name
        and result.against is None
        and result.seeds == tuple(seeds if chosen.description.draws else seeds[:1])
        and result.settings.get("config", {}) == chosen.asked
    ]
    taps = {*asked.taps} - {"all"} if chosen.on_features else set()
    return bool(found) and taps <= {result.where for result in found}


def baselines_path(cells: Path, study: Study, config: ResolvedConfig, data: str) -> Path:
    """Where the baselines of this seed, encoder and augmentation are kept, for all studies. `data`:
    the key of the images."""
    settings = {p: v for p, v in own_settings(config).items() if p.split(".")[0] in _OF_BASELINES}
    name = f"baselines-{digest(settings, study.base.seed, data)}"
    return cells / name / f"seed{config.seed}.npz"


def measure_baselines(cells: Path, study: Study, run: Run, images: Splits) -> None:
    """Those of the run's seed, once for all workers; first those of the first seed, for which the
    learning rate from scratch is chosen."""
    config, images = load_config(run), labelled_splits(images)
    path = baselines_path(cells, study, config, identify(images, config.data).key)
    first = path.with_name(f"seed{study.base.seed}.npz")
    config = on_this_machine(config)
    while not path.exists():
        try:
            with writing(path.parent):
                for seed, place in ((study.base.seed, first), (config.seed, path)):
                    of_seed = replace(config, seed=seed)
                    baselines(of_seed, images, place, scratch=True, first=first, started=run)
                return
        except Busy:
            pause()
