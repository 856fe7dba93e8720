"""Evaluating a run: features once for all taps, then every protocol."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from headwise.data import DataConfig, Splits, open_images
from headwise.evaluation.config import EvaluateConfig, Protocol
from headwise.evaluation.paired_runs import check_other, differences, same_geometry
from headwise.evaluation.protocols.catalogue import (
    ON_TABLES,
    VERSION,
    WITHOUT_SEED,
    chosen_protocols,
    measure,
)
from headwise.evaluation.protocols.transfer import open_targets
from headwise.evaluation.subject import Subject, baseline_tables, tables
from headwise.features.extract import all_taps, check_taps, extract_config, weights_hash
from headwise.model.trained import load_model
from headwise.runs.directory import Run
from headwise.runs.results import Result, Value, summarise
from headwise.runtime import hardware


def evaluate(
    run: str | Path,
    data: DataConfig | str | None = None,
    config: EvaluateConfig | None = None,
    *,
    images: Splits | None = None,
) -> dict[str, Result]:
    """Measure a finished run, add the results to its results.json and evaluation.npz, and return
    them.

    Keys are `protocol/what` (docs/metrics.md). `data` None: that of pretraining. Results are
    written after every protocol. Raises `UserError` for an unknown protocol or tap, an unfinished
    run, or images that a protocol cannot use.
    """
    config = config or EvaluateConfig()
    opened = Run.open(Path(run))
    other = None if config.against is None else Run.open(config.against)
    if other is not None:
        check_other(other)
    spec = DataConfig(spec=data) if isinstance(data, str) else data
    subject, protocols = open_subject(opened, config, spec, images)
    opened.add_arrays({"classes": np.array(subject.images.train.classes, dtype=str)})
    results = {}
    for name in protocols:
        found, arrays = measured(name, subject, config)
        opened.add_results(found)
        opened.add_arrays(arrays)
        results |= found
    if other is not None:
        compared = differences(opened, other, results, seed=config.seed)
        compared |= dict(same_geometry(subject, other))
        opened.add_results(compared)
        results |= compared
    return results


def open_subject(
    run: Run, config: EvaluateConfig, data: DataConfig | None = None, images: Splits | None = None
) -> tuple[Subject, tuple[Protocol, ...]]:
    """The run's model and its features of the images, and the protocols in their order.

    Raises `UserError` before anything is extracted where the two do not fit.
    """
    trained, model = load_model(run)
    if trained.keep_freed_memory:
        hardware.keep_freed_memory()
    data = data or trained.data
    images = images or open_images(data)
    protocols = chosen_protocols(config, images, data.spec)
    targets = open_targets(config.transfer) if "transfer" in protocols else ()
    taps = all_taps(model.encoder, model.head) if "all" in config.taps else config.taps
    check_taps(taps, model.encoder, model.head)
    how = extract_config(trained, config.device, config.seed)
    model.to(how.device).eval()
    features = {}
    if any(name in ON_TABLES for name in protocols):
        features = tables(model, images, taps, how)
        if config.baselines:
            features |= baseline_tables(trained, images, how)
    subject = Subject(
        config=trained,
        model=model,
        images=images,
        spec=data.spec,
        how=how,
        tables=features,
        folder=run.path,
        targets=targets,
    )
    return subject, protocols


def measured(
    name: Protocol, subject: Subject, config: EvaluateConfig
) -> tuple[dict[str, Result], dict[str, np.ndarray]]:
    """A protocol's results over the seeds, and its arrays: those of the first seed, and of every
    test image the mean over seeds. The model is bit for bit what it was."""
    seeds: Sequence[int] = range(config.seed, config.seed + config.seeds)
    seeds = seeds[:1] if name in WITHOUT_SEED else seeds
    before = weights_hash(subject.model)
    by_name: dict[str, list[Value]] = {}
    for seed in seeds:
        for value in measure(name, subject, config, seed):
            by_name.setdefault(value.name, []).append(value)
    assert weights_hash(subject.model) == before, f"{name} has changed the model"
    about = {
        "protocol": name,
        "version": VERSION,
        "data": subject.spec,
        "fingerprint": subject.shown.fingerprint,
    }
    results, arrays = {}, {}
    for key, values in by_name.items():
        results[key] = {**summarise(values, seeds), **about}
        arrays |= {f"{kind}/{key}": array for kind, array in values[0].arrays.items()}
        each = [value.each for value in values if value.each is not None]
        if each:
            arrays[f"each/{key}"] = torch.stack(each).mean(0).float().numpy()
    return results, arrays
