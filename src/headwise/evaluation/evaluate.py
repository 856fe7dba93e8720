"""Evaluating a run: features once for all taps, then every protocol."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from headwise.data import DataConfig, Splits, open_images
from headwise.evaluation.choice import chosen_protocols
from headwise.evaluation.config import EvaluateConfig, ProtocolName, protocol
from headwise.evaluation.paired_runs import check_other, differences, same_geometry
from headwise.evaluation.protocols.transfer import open_targets
from headwise.evaluation.subject import Subject, baseline_tables, tables
from headwise.features.extract import all_taps, check_taps, extract_config, weights_hash
from headwise.model.trained import load_model
from headwise.runs.directory import Run
from headwise.runs.results import DataIdentity, Result, Value, summarise
from headwise.runtime import hardware

VERSION = 1
"""Of the protocols: rises when the same model, images and seed give another value."""


def evaluate(
    run: str | Path,
    data: DataConfig | str | None = None,
    config: EvaluateConfig | None = None,
    *,
    images: Splits | None = None,
) -> dict[str, Result]:
    """Measure a finished run, add the results to its results.json and evaluation.npz, and return
    them.

    Keys are `measure/where` (docs/metrics.md). `data` None: that of pretraining. Every data set has
    a section of its own in results.json, which is written after every protocol. Raises `UserError`
    for an unknown protocol or tap, an unfinished run, or images that a protocol cannot use.
    """
    config = config or EvaluateConfig()
    opened = Run.open(Path(run))
    other = None if config.against is None else Run.open(config.against)
    if other is not None:
        check_other(other)
    spec = DataConfig(spec=data) if isinstance(data, str) else data
    subject, protocols = open_subject(opened, config, spec, images)
    data_identity = identity(subject)
    results: dict[str, Result] = {}
    for name in protocols:
        measured, arrays = measure_protocol(name, subject, config)
        opened.add_arrays(data_identity, arrays)
        opened.add_results(data_identity, measured)
        results |= measured
    if other is not None:
        compared = differences(opened, other, data_identity, results, seed=config.seed)
        compared |= {r.key: r for r in same_geometry(subject, other, version=VERSION)}
        opened.add_results(data_identity, compared)
        results |= compared
    return results


def identity(subject: Subject) -> DataIdentity:
    """Which images the results of this subject belong to."""
    train, test = subject.images
    return DataIdentity(
        spec=subject.spec,
        fingerprint=subject.shown.fingerprint,
        classes=tuple(train.classes),
        train_images=len(train),
        test_images=None if test is None else len(test),
    )


def open_subject(
    run: Run, config: EvaluateConfig, data: DataConfig | None = None, images: Splits | None = None
) -> tuple[Subject, tuple[ProtocolName, ...]]:
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
    if any(protocol(name, config).on_features for name in protocols):
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


def measure_protocol(
    name: ProtocolName, subject: Subject, config: EvaluateConfig
) -> tuple[dict[str, Result], dict[str, np.ndarray]]:
    """A protocol's results over the seeds, and its arrays: those of the first seed, and for every
    test image the mean over seeds. Does not change the model."""
    chosen = protocol(name, config)
    seeds: Sequence[int] = range(config.seed, config.seed + config.seeds)
    seeds = seeds if chosen.description.draws else seeds[:1]
    before = weights_hash(subject.model)
    by_key: dict[str, list[Value]] = {}
    for seed in seeds:
        for value in chosen.measure(subject, seed):
            assert value.protocol == name, f"{value.key} must be of protocol {name}"
            assert value.measure in chosen.description.labels, f"{value.measure} needs a label"
            by_key.setdefault(value.key, []).append(value)
    assert weights_hash(subject.model) == before, f"{name} has changed the model"
    results, arrays = {}, {}
    for key, values in by_key.items():
        results[key] = summarise(values, seeds, version=VERSION)
        arrays |= {f"{kind}/{key}": array for kind, array in values[0].arrays.items()}
        each = [value.each for value in values if value.each is not None]
        if each:
            arrays[f"each/{key}"] = torch.stack(each).mean(0).float().numpy()
    return results, arrays
