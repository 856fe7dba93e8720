"""Evaluating a run: features once for all taps, then every protocol."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from headwise.data import DataConfig, Given
from headwise.data.names import Names
from headwise.evaluation.choice import check_protocols, chosen_protocols
from headwise.evaluation.config import EvaluateConfig, ProtocolName, protocol
from headwise.evaluation.extracted import (
    Extracted,
    ExtractedRun,
    baseline_tables,
    start_table,
    tables,
)
from headwise.evaluation.paired_runs import check_other, differences, same_geometry
from headwise.evaluation.probes.labels import constant_answer
from headwise.evaluation.protocols.targets import Target, open_targets
from headwise.features.extract import all_taps, check_taps, weights_hash
from headwise.model.trained import Trained, open_trained
from headwise.runs.directory import Run
from headwise.runs.lock import writing
from headwise.runs.results import Result, Value, summarise
from headwise.runs.sections import Section

VERSION = 1
"""Of the protocols: rises when the same model, images and seed give another value."""


def evaluate(
    run: str | Path | Run,
    data: DataConfig | str | Path | None = None,
    config: EvaluateConfig | None = None,
    *,
    images: Given | None = None,
    accept_changed_data: bool = False,
) -> dict[str, Result]:
    """Measure a finished run, add the results to its results.json and evaluation.npz, and return
    them (`measure`, with the images that they belong to).

    Keys are `measure/where` (docs/metrics.md). `data` None: that of pretraining. Every data set has
    a section of its own in results.json, which is written after every protocol. Raises `UserError`
    for an unknown protocol or tap, an unfinished run, images that a protocol cannot use, or images
    of pretraining that have changed since (unless `accept_changed_data`).
    """
    config, accept = config or EvaluateConfig(), accept_changed_data
    return measure(run, data, config, images=images, accept_changed_data=accept).results


def measure(
    run: str | Path | Run,
    data: DataConfig | str | Path | None,
    config: EvaluateConfig,
    *,
    images: Given | None = None,
    accept_changed_data: bool = False,
) -> Section:
    """As `evaluate`: what was measured, and on which images."""
    opened = Run.open(run)
    other, against = None, config.against
    if against is not None:
        other = Run.open(against, handed=opened.handed, pretrained=False)
        check_other(other)
    with writing(opened.path):
        trained = open_trained(
            opened,
            data,
            images,
            accept_changed_data=accept_changed_data,
            device=config.device,
            seed=config.seed,
            check=partial(check_protocols, config),
        )
        extracted, protocols = extract_run(trained, config)
        opened.add_arrays(trained.data, about_images(extracted))
        results: dict[str, Result] = {}
        for name in protocols:
            measured, arrays = measure_protocol(name, extracted, config)
            opened.add_arrays(trained.data, arrays)
            opened.add_results(trained.data, measured)
            results |= measured
        if other is not None:
            compared = differences(opened, other, trained.data, results, seed=config.seed)
            compared |= {r.key: r for r in same_geometry(extracted, other, version=VERSION)}
            opened.add_results(trained.data, compared)
            results |= compared
    return Section(data=trained.data, results=results)


def about_images(extracted: ExtractedRun) -> dict[str, np.ndarray]:
    """The test images that could be read, in their order: their names, their labels, and for which
    of them the constant answer is right. Empty where there are none with labels."""
    train, test = extracted.images
    if test is None or train.labels is None or test.labels is None:
        return {}
    read = next(iter(extracted.tables.values())).test.index if extracted.tables else None
    names = test.ids if read is None else test.ids.select(read.numpy())
    truth = test.labels.cpu() if read is None else test.labels.cpu()[read]
    return of_test_images(names, train.labels.cpu(), truth)


def of_test_images(
    names: Names | None, labels: Int64[Tensor, " n"], truth: Int64[Tensor, " m"]
) -> dict[str, np.ndarray]:
    """Their names, their labels, and for which of them the constant answer is right."""
    found = {
        "truth/constant": truth.numpy(),
        "each/constant": constant_answer(labels, truth).float().numpy(),
    }
    if names is None:
        return found
    return {
        "names/constant": np.frombuffer(b"".join(names.encoded()), np.uint8),
        "lengths/constant": (names.ends - names.starts).astype(np.int32),
        **found,
    }


def extract_run(
    trained: Trained, config: EvaluateConfig
) -> tuple[ExtractedRun, tuple[ProtocolName, ...]]:
    """What the protocols read, with the features of the images, and the protocols in their order.

    Raises `UserError` before anything is extracted if a protocol cannot use the images.
    """
    model, images, extraction = trained.model, trained.images, trained.extraction
    protocols = chosen_protocols(config, images, trained.data.spec)
    targets: tuple[Target, ...] = ()
    if "transfer" in protocols:
        asked = config.transfer
        targets = open_targets(asked.targets, limit=asked.limit, run=trained.run)
    taps = all_taps(model.encoder, model.head) if "all" in config.taps else config.taps
    check_taps(taps, model.encoder, model.head)
    features = {}
    if any(protocol(name, config).on_features for name in protocols):
        features = tables(model, images, taps, extraction)
        if config.baselines:
            features |= baseline_tables(trained.config, images, extraction)
            features |= start_table(trained.config, images, extraction, trained.run)
    extracted = ExtractedRun(
        config=trained.config,
        model=model,
        images=images,
        extraction=extraction,
        tables=features,
        folder=trained.run.path,
        targets=targets,
    )
    return extracted, protocols


def measure_protocol(
    name: ProtocolName, extracted: Extracted, config: EvaluateConfig
) -> tuple[dict[str, Result], dict[str, np.ndarray]]:
    """A protocol's results over the seeds, and its arrays: those of the first seed, and for every
    test image the mean over seeds. Does not change the model."""
    chosen = protocol(name, config)
    seeds: Sequence[int] = range(config.seed, config.seed + config.seeds)
    seeds = seeds if chosen.description.draws else seeds[:1]
    model = extracted.model if isinstance(extracted, ExtractedRun) else nn.Identity()
    before = weights_hash(model)
    by_key: dict[str, list[Value]] = {}
    for seed in seeds:
        for value in chosen.measure(extracted, seed):
            assert value.protocol == name, f"{value.key} must be of protocol {name}"
            assert value.measure in chosen.description.labels, f"{value.measure} needs a label"
            by_key.setdefault(value.key, []).append(value)
    assert weights_hash(model) == before, f"{name} has changed the model"
    results, arrays = {}, {}
    for key, values in by_key.items():
        result = summarise(values, seeds, version=VERSION)
        asked = {"config": chosen.asked} if chosen.asked else {}
        results[key] = replace(result, settings={**result.settings, **asked})
        arrays |= {f"{kind}/{key}": array for kind, array in values[0].arrays.items()}
        each = [value.each for value in values if value.each is not None]
        if each:
            arrays[f"each/{key}"] = torch.stack(each).mean(0).float().numpy()
    return results, arrays
