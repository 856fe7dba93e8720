"""What heads are set beside: a constant answer, raw pixels, the encoder untrained, the encoder with
its start weights, and the encoder trained from scratch on the same labels."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from headwise.comparison.summary import LEADING, PROTOCOLS
from headwise.data import Images, Splits
from headwise.evaluation.config import EvaluateConfig, protocol
from headwise.evaluation.extracted import SplitFeatures, baseline_tables, start_table
from headwise.evaluation.probes.labels import constant_answer, labelled
from headwise.evaluation.protocols.description import TapFeatures
from headwise.evaluation.protocols.finetune import FinetuneConfig, from_scratch
from headwise.files import write_atomically
from headwise.model.config import ResolvedConfig
from headwise.model.extraction import ExtractConfig, extract_config
from headwise.model.trained import load_config
from headwise.runs.directory import Run, load_arrays, save_arrays
from headwise.runs.results import Value

log = logging.getLogger("headwise")

Baselines = dict[str, np.ndarray]
"""Of one seed: whether each test image is answered rightly, by `PROTOCOL/BASELINE`; the class that
was answered and its margin, by `predictions/…` and `margins/…`; and the labels, `truth`."""
_RATE = "scratch_learning_rate"


def baselines(
    config: ResolvedConfig,
    images: Splits,
    path: Path,
    *,
    scratch: bool,
    first: Path,
    started: Run | None = None,
) -> Baselines:
    """Those of the config's seed, measured once and kept at `path`; empty without labels.

    `scratch`: also train from scratch. Its learning rate is chosen once, for the seed whose
    baselines are at `first`. `started`: a run with the start weights, if there are any.
    """
    if not labelled(images):
        return {}
    kept = load_arrays(path)
    if kept:
        return kept
    extraction, of_first = extract_config(config), load_arrays(first)
    features = baseline_tables(config, images, extraction)
    if started is not None:
        theirs = replace(
            config, **{n: vars(load_config(started))[n] for n in ("encoder", "augment")}
        )
        features |= start_table(theirs, images, extract_config(theirs), started)
    found = _probed(features, images, config.seed, of_first)
    labels, truth = images.train.labels, features["untrained"].test.labels
    assert labels is not None, "labelled images have labels"
    assert truth is not None, "labelled images have labels"
    right = constant_answer(labels, truth).double().numpy()
    found |= {"truth": truth.numpy()} | {f"{name}/constant": right for name in LEADING}
    if scratch:
        rate = of_first.get(_RATE)
        found |= _from_scratch(config, images, extraction, None if rate is None else float(rate))
    write_atomically(path, lambda at: save_arrays(at, found))
    return found


def _probed(
    features: Mapping[str, SplitFeatures], images: Splits, seed: int, of_first: Baselines
) -> Baselines:
    """The answers of all probes on these features. Those that no seed changes are `of_first`."""
    found: Baselines = {}
    for name in PROTOCOLS:
        chosen = protocol(name, EvaluateConfig())
        for tap, (train, test) in features.items():
            key = f"{name}/{tap}"
            # Pixels are those of every seed, and so are the answers of a protocol without draws.
            if key in of_first and tap == "pixels" and not chosen.description.draws:
                found |= {n: array for n, array in of_first.items() if n.endswith(key)}
                continue
            for value in chosen.at_tap(TapFeatures(tap, train, test, images, seed)):
                if value.key == key:
                    found |= _answers(value, key)
    return found


def _from_scratch(
    config: ResolvedConfig, images: Splits, extraction: ExtractConfig, rate: float | None
) -> Baselines:
    """As many epochs as pretraining has. Empty where no class has two images to choose a learning
    rate on."""
    if not _has_two_of_a_class(images.train):
        return {}
    log.info("seed %d: training from scratch on the same labels, for comparison", config.seed)
    rates = FinetuneConfig().lrs if rate is None else (rate,)
    settings = FinetuneConfig(scratch_epochs=config.epochs, lrs=rates)
    value = next(iter(from_scratch(config, images, extraction, settings, seed=config.seed)))
    found = _answers(value, "linear/scratch")
    return found | {_RATE: np.array(value.settings["learning_rate"])}


def _answers(value: Value, key: str) -> Baselines:
    """Right or wrong, the class answered, and the margin, for each test image."""
    assert value.each is not None, "an accuracy is a mean over test images"
    kinds = ("predictions", "margins")
    kept = {f"{kind}/{key}": value.arrays[kind] for kind in kinds if kind in value.arrays}
    return {key: value.each.numpy(), **kept}


def _has_two_of_a_class(train: Images) -> bool:
    assert train.labels is not None, "labelled images have labels"
    return bool(torch.bincount(train.labels.long()).max() >= 2)
