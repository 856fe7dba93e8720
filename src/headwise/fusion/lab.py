"""The lab: whether the attention of a run's head brings a class together, against its controls."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from headwise.data import DataConfig, Given
from headwise.features.extract import weights_hash
from headwise.fusion.batches import BatchPlan, draw_batches, labelled_images, plan_batches
from headwise.fusion.config import FusionConfig
from headwise.fusion.controls import with_controls
from headwise.fusion.measuring import Arrays, measure_batches
from headwise.fusion.training import measure_training
from headwise.fusion.verdict import LEAST_BATCHES, BlockVerdict, Estimate, estimate, judge
from headwise.model.trained import Trained, open_trained
from headwise.runs.directory import Run
from headwise.runs.lock import writing
from headwise.runs.results import Result, Settings, Unit

log = logging.getLogger("headwise")

VERSION = 3
"""Of the measures: rises when the same run, images and seed give another value."""

# A p-value can then fall to the level of the verdict, which is 0.05 over the number of blocks.
_PERMUTATIONS_A_BLOCK = 20


def measure_fusion(
    run: str | Path | Run,
    data: DataConfig | str | Path | None = None,
    config: FusionConfig | None = None,
    *,
    images: Given | None = None,
    accept_changed_data: bool = False,
    quiet: bool = True,
) -> dict[str, Result]:
    """Measure attention and geometry of a finished run's head: write fusion.npz into the run
    directory, add the main numbers to its results.json, and return those. What is there already of
    the same weights, images and settings is kept.

    `data` None: that of pretraining. docs/fusion.md lists the arrays; `fusion.conclusion` puts
    them into words. Raises `UserError` for an unfinished run and for images that cannot serve:
    without labels, of one class, or too few for two batches.
    """
    config = config or FusionConfig()
    opened = Run.open(run)
    with writing(opened.path):
        trained = open_trained(
            opened,
            data,
            images,
            accept_changed_data=accept_changed_data,
            device=config.device,
            seed=config.seed,
            check=partial(labelled_images, split=config.split),
        )
        return _measure(trained, config, quiet=quiet)


def _measure(trained: Trained, config: FusionConfig, *, quiet: bool) -> dict[str, Result]:
    model, pretraining = trained.model, trained.config
    blocks = model.head.block_taps
    size, images = pretraining.batch_size, trained.images
    plan = plan_batches(config, images, trained.data.spec, size, least=LEAST_BATCHES)
    config = replace(config, permutations=_permutations(config, len(blocks)))
    if config.over_training and not blocks:
        log.warning("--over-training has no effect: the head has no attention over the batch")
    before = weights_hash(model)
    settings = _settings(trained, config, plan, before)
    kept = trained.run.fusion_arrays
    if str(kept.get("settings")) == settings and (
        "training_gain" in kept or not (config.over_training and blocks)
    ):
        log.info("%s: measured already with these settings, and kept", trained.run.path)
        return _add_results(trained, kept, plan, seed=config.seed)
    batches = draw_batches(model.encoder, plan, trained.extraction)
    heads = with_controls(model.head, pretraining.head, batches, seed=pretraining.seed + 1)
    arrays = measure_batches(
        heads, batches, permutations=config.permutations, seed=config.seed, quiet=quiet
    )
    if config.over_training and blocks:
        arrays |= measure_training(trained, plan, quiet=quiet)
        arrays["training_gain_untrained"] = arrays["layer_gain_untrained"]
    assert weights_hash(model) == before, "fusion has changed the model"
    about = {"split": plan.split, "spec": trained.data.spec, "settings": settings}
    about |= {"fingerprint": plan.images.fingerprint}
    about |= {"train_fingerprint": trained.data.train_fingerprint}
    arrays |= {name: np.array(text) for name, text in about.items()}
    arrays["classes"] = np.array(plan.images.classes)
    trained.run.write_fusion_arrays(arrays)
    return _add_results(trained, arrays, plan, seed=config.seed)


def _permutations(config: FusionConfig, blocks: int) -> int:
    """So many that a p-value can fall to the level of the verdict."""
    least = _PERMUTATIONS_A_BLOCK * blocks
    if least > config.permutations:
        log.warning(
            "--permutations is raised from %d to %d, so that p can reach the level of the verdict",
            config.permutations,
            least,
        )
    return max(config.permutations, least)


def _settings(trained: Trained, config: FusionConfig, plan: BatchPlan, weights: str) -> str:
    """All that the arrays depend on, beside whether they are over training."""
    settings = {
        "version": VERSION,
        "weights": weights,
        "images": plan.images.fingerprint,
        "split": plan.split,
        "batch_size": plan.batch_size,
        "batches": plan.batches,
        "permutations": config.permutations,
        "seed": config.seed,
        "device": str(trained.extraction.device),
        "precision": trained.extraction.precision,
    }
    return json.dumps(settings)


def _add_results(
    trained: Trained, arrays: Arrays, plan: BatchPlan, *, seed: int
) -> dict[str, Result]:
    """Add the results to results.json, and return them."""
    data = replace(trained.data, fingerprint=plan.images.fingerprint)
    settings = {"split": plan.split, "batch_size": plan.batch_size}
    results = main_results(arrays, seed=seed, settings=settings)
    trained.run.add_results(data, results)
    return results


def main_results(arrays: Arrays, *, seed: int, settings: Settings) -> dict[str, Result]:
    """What results.json has of the arrays: means over batches with their t-intervals, by
    `measure/tap` (docs/metrics.md). Those that are not defined are left out."""
    judged = judge(arrays)
    results = [
        *(r for i, block in enumerate(judged.blocks) for r in _block_results(arrays, i, block)),
        *(_nearest_result(arrays, i, tap) for i, tap in enumerate(arrays["taps"].tolist())),
    ]
    if judged.slope is not None:
        n = len(arrays["layer_gain"])
        results.append(_result("fusion_slope", "", "slope", judged.slope, n))
    return {
        result.key: replace(result, seeds=(seed,), settings={**result.settings, **settings})
        for result in results
        if np.isfinite(result.value)
    }


def _block_results(arrays: Arrays, place: int, block: BlockVerdict) -> Iterator[Result]:
    """The results of one attention block, the `place`-th."""
    columns: dict[str, tuple[str, Unit, float | None]] = {
        "fusion_gain": ("layer_gain", "gain", 1.0),
        "fusion_gain_untrained": ("layer_gain_untrained", "gain", 1.0),
        "fusion_gain_h": ("layer_gain_h", "gain", 1.0),
        "fusion_gain_input": ("layer_gain_input", "gain", 1.0),
        "fusion_twin_mass": ("twin_mass", "share", None),
        "fusion_self_mass": ("self_mass", "share", None),
        "fusion_other_mass": ("other_mass", "share", None),
        "fusion_auroc": ("layer_auroc", "score", 0.5),
        "fusion_nmi": ("layer_nmi", "score", float(arrays["layer_nmi_permuted"][place].mean())),
    }
    for measure, (name, unit, chance) in columns.items():
        values = arrays[name][:, place]
        # Of arrays with a value for each attention head: the mean over them.
        values = values.mean(1) if values.ndim == 2 else values
        result = _result(measure, block.tap, unit, estimate(values), len(values))
        result = replace(result, chance=chance)
        if measure == "fusion_gain":
            result = replace(
                result, p_value=block.p_value, settings={"exceeds_controls": block.fuses}
            )
        yield result


def _nearest_result(arrays: Arrays, place: int, tap: str) -> Result:
    """1-NN within the batch, at the `place`-th tap."""
    values, p = arrays["nn1"][:, place], float(arrays["p_nn1"][place])
    result = _result("fusion_nn1", tap, "share", estimate(values), len(values))
    return replace(result, chance=float(arrays["nn1_permuted"][place].mean()), p_value=p)


def _result(measure: str, where: str, unit: Unit, mean: Estimate, n: int) -> Result:
    return Result(
        protocol="fusion",
        measure=measure,
        where=where,
        unit=unit,
        value=mean.mean,
        # One batch alone has no interval.
        interval=(mean.low, mean.high) if np.isfinite(mean.low) else None,
        n=n,
        version=VERSION,
    )
