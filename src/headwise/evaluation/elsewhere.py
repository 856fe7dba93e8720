"""Measuring without a run: an encoder, or features, from anywhere. The results have a directory of
their own."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from headwise.data import DataConfig, Splits, as_config, open_images
from headwise.data.names import Names, as_names
from headwise.data.split import labelled_splits, test_images
from headwise.errors import UserError
from headwise.evaluation.choice import missing_labels
from headwise.evaluation.config import PROTOCOLS, EvaluateConfig, ProtocolName, protocol
from headwise.evaluation.evaluate import measure_protocol, of_test_images
from headwise.evaluation.extracted import FeaturesAlone, SplitFeatures, encoder_tables, pixels
from headwise.evaluation.paired_runs import check_other, differences
from headwise.features.extract import all_taps, check_taps, finite, weights_hash
from headwise.features.given import read_features
from headwise.files import Json, read_object
from headwise.model.elsewhere import EncoderChoice, open_encoder
from headwise.model.extraction import decide_extraction
from headwise.model.trained import identify
from headwise.runs.directory import EVALUATED, Run, refuse_existing
from headwise.runs.lock import writing
from headwise.runs.results import Result
from headwise.runs.sections import DataIdentity, Section
from headwise.runtime.hardware import Precision

_Measured = tuple[dict[str, Result], dict[str, np.ndarray]]
"""Results by key, and arrays by name."""


def evaluate_features(
    table: str | Path, out: str | Path, config: EvaluateConfig | None = None
) -> dict[str, Result]:
    """Measure a table of features, a .parquet or an .npz (docs/run-directory.md), and return the
    results by `measure/where`; `out` gets results.json and evaluation.npz.

    `config` None: every protocol that needs features alone. `out` is new, or has results of the
    same table, to which these are added. Raises `UserError` for a table that is not whole, and for
    a protocol that needs more.
    """
    return measure_features(table, out, config or EvaluateConfig(protocols=("all",))).results


def measure_features(table: str | Path, out: str | Path, config: EvaluateConfig) -> Section:
    """As `evaluate_features`: what was measured, and on which images."""
    found = read_features(table)
    asked = _chosen(config, None, str(table))
    taps = _asked_taps(config, tuple(found.taps)) or tuple(found.taps)
    for tap in taps:
        if tap not in found.taps:
            raise UserError(
                f"--taps must be columns of {table}: {', '.join(found.taps)}; got {tap!r}"
            )
    tests = int(found.test.sum())
    data = DataIdentity(
        spec=str(table),
        fingerprint=found.fingerprint(test=True),
        train_fingerprint=found.fingerprint(test=False),
        classes=found.classes,
        train_images=len(found.labels) - tests,
        test_images=tests,
        split="by the table",
    )
    with Path(table).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    about = {"features": str(table), "sha256": digest}
    tables = {
        tap: SplitFeatures(found.features(tap, test=False), found.features(tap, test=True))
        for tap in taps
    }
    run = _results(Path(out), about, config)
    names = [found.names[i] for i in found.test.nonzero().flatten().tolist() if found.names]
    extracted = FeaturesAlone(tables, None)
    measured = _measure(extracted, as_names(names) if names else None, asked, config)
    return _write(run, data, measured, config, about)


def evaluate_encoder(
    encoder: str | Path,
    data: DataConfig | str | Path,
    out: str | Path,
    config: EvaluateConfig | None = None,
    *,
    choice: EncoderChoice | None = None,
    precision: Precision = "auto",
) -> dict[str, Result]:
    """Measure an encoder from anywhere on labelled images, and return the results by
    `measure/where`; `out` gets results.json and evaluation.npz.

    `encoder`: `timm:NAME`, a run or its encoder.safetensors, a file of weights, or a folder of the
    hub (`open_encoder`). `config` None: every protocol that needs features alone, at `h`. `out` as
    in `evaluate_features`. Raises `UserError` for an encoder or images that cannot be used, and for
    a protocol that needs more.
    """
    config = config or EvaluateConfig(protocols=("all",))
    chosen = choice or EncoderChoice()
    return measure_encoder(encoder, data, out, config, choice=chosen, precision=precision).results


def measure_encoder(
    encoder: str | Path,
    data: DataConfig | str | Path,
    out: str | Path,
    config: EvaluateConfig,
    *,
    choice: EncoderChoice,
    precision: Precision,
) -> Section:
    """As `evaluate_encoder`: what was measured, and on which images."""
    given = open_encoder(encoder, replace(choice, seed=config.seed))
    taps = _asked_taps(config, all_taps(given.encoder, None)) or ("h",)
    check_taps(taps, given.encoder, None)
    about = given.about | {"weights": weights_hash(given.encoder)}
    run = _results(Path(out), about, config)
    settings = as_config(data).like(given.reading)
    images, asked = _open(settings, config, str(encoder))
    extraction = decide_extraction(
        given.images,
        images,
        device=config.device,
        precision=precision,
        workers=None,
        seed=config.seed,
    )
    model = given.encoder.to(extraction.device)
    tables = encoder_tables(model, None, images, taps, extraction)
    for tap, parts in tables.items():
        for part in parts:
            finite(f"{encoder}'s {tap}", part.vectors)
    if config.baselines:
        tables["pixels"] = pixels(images, extraction)
    index = next(iter(tables.values())).test.index
    names = test_images(images).ids.select(index.numpy())
    measured = _measure(FeaturesAlone(tables, images), names, asked, config)
    about |= {"device": extraction.device, "precision": extraction.precision}
    return _write(run, identify(images, settings), measured, config, about)


def _open(
    data: DataConfig, config: EvaluateConfig, what: str
) -> tuple[Splits, tuple[ProtocolName, ...]]:
    """Labelled images, and the protocols. What cannot be measured ends before one is decoded."""

    def check(listed: Splits) -> tuple[ProtocolName, ...]:
        images = labelled_splits(listed)
        if missing := missing_labels(images, data.spec):
            raise UserError(missing)
        return _chosen(config, images, what)

    images = labelled_splits(open_images(data, check=check))
    return images, check(images)


def _chosen(config: EvaluateConfig, images: Splits | None, what: str) -> tuple[ProtocolName, ...]:
    """The protocols in their order, with `all` spelled out. Raises `UserError` for one that was
    asked for by name and needs more than features, and for an unknown one."""
    found = []
    for name in {**dict.fromkeys(config.protocols), **dict.fromkeys(PROTOCOLS)}:
        if name == "all":
            continue
        chosen = protocol(name, config)
        has_factors = images is not None and images.train.factors
        if chosen.on_features is None:
            obstacle = f"{name} needs a run, with its images, encoder and head"
        elif chosen.description.needs == "factors" and not has_factors:
            obstacle = f"{name} needs images with known factors (builtin:shapes has)"
        else:
            found.append(name)
            continue
        if name in config.protocols:
            raise UserError(f"{obstacle}; got {what}; leave it out of --protocols")
    return tuple(n for n in PROTOCOLS if n in found and {n, "all"} & {*config.protocols})


def _asked_taps(config: EvaluateConfig, known: tuple[str, ...]) -> tuple[str, ...]:
    """Those that were asked for; none where the setting is the default."""
    if "all" in config.taps:
        return known
    return () if config.taps == EvaluateConfig().taps else tuple(dict.fromkeys(config.taps))


def _results(out: Path, about: Json, config: EvaluateConfig) -> Run:
    """The directory of the results, not yet made. Raises `UserError` unless `out` is new or has
    results of the same, and where there is nothing to compare with."""
    file = out / "config.json"
    known = read_object(file).get(EVALUATED, {}) if file.is_file() else {}
    unlike = {key for key in about if about[key] != known.get(key)}
    if unlike - {"features", "encoder"}:  # the same may be at another place now
        refuse_existing(out, resumable=False)
    if config.against is not None:
        check_other(Run.open(config.against, pretrained=False))
    return Run(out)


def _measure(
    extracted: FeaturesAlone,
    names: Names | None,
    asked: tuple[ProtocolName, ...],
    config: EvaluateConfig,
) -> _Measured:
    """The results of all protocols, and their arrays. `names`: of the test images."""
    train, test = next(iter(extracted.tables.values()))
    assert train.labels is not None, "labels were checked"
    assert test.labels is not None, "labels were checked"
    results, arrays = {}, of_test_images(names, train.labels, test.labels)
    for name in asked:
        measured, found = measure_protocol(name, extracted, config)
        results |= measured
        arrays |= found
    return results, arrays


def _write(
    run: Run, data: DataIdentity, measured: _Measured, config: EvaluateConfig, about: Json
) -> Section:
    """Add what was measured to the results in `run`, which is made if it is not there."""
    results, arrays = measured
    with writing(run.path):
        if not (run.path / "config.json").is_file():
            Run.create(run.path, {EVALUATED: about}, about.get("device", "cpu"))
        run.add_arrays(data, arrays)
        run.add_results(data, results)
        if config.against is not None:
            other = Run.open(config.against, pretrained=False)
            compared = differences(run, other, data, results, seed=config.seed)
            run.add_results(data, compared)
            results |= compared
    return Section(data=data, results=results)
