"""The lab: whether the attention of a run's head brings a class together, against its controls."""

from pathlib import Path
from typing import Any

import numpy as np

from headwise.data import DataConfig, Splits, open_images
from headwise.features.extract import extract_config, weights_hash
from headwise.fusion.batches import draw_batches, plan_batches
from headwise.fusion.config import FusionConfig
from headwise.fusion.controls import with_controls
from headwise.fusion.measuring import Arrays, measure
from headwise.fusion.training import measure_training
from headwise.fusion.verdict import Estimate, estimate, judge
from headwise.model.trained import load_model
from headwise.runs.directory import Run
from headwise.runs.results import Result
from headwise.runtime import hardware

VERSION = 1
"""Of the measures: rises when the same run, images and seed give another value."""

# A p-value can then fall to the level of the verdict, which is 0.05 over the number of blocks.
_PERMUTATIONS_A_BLOCK = 20


def measure_fusion(
    run: str | Path,
    data: DataConfig | str | None = None,
    config: FusionConfig | None = None,
    *,
    images: Splits | None = None,
    quiet: bool = True,
) -> dict[str, Result]:
    """Measure attention and geometry of a finished run's head: write fusion.npz into the run
    directory, add the main numbers to its results.json, and return those.

    `data` None: that of pretraining. docs/fusion.md lists the arrays; `fusion.conclusion` puts
    them into words. Raises `UserError` for an unfinished run and for images that cannot serve:
    without labels, of one class, or too few for two batches.
    """
    config = config or FusionConfig()
    opened = Run.open(Path(run))
    trained, model = load_model(opened)
    spec = DataConfig(spec=data) if isinstance(data, str) else data or trained.data
    if trained.keep_freed_memory:
        hardware.keep_freed_memory()
    plan = plan_batches(config, images or open_images(spec), spec.spec, trained.batch_size)
    how = extract_config(trained, config.device, config.seed)
    model.to(how.device).eval()
    before = weights_hash(model)
    batches = draw_batches(model.encoder, plan, how)
    heads = with_controls(model.head, trained.head, batches, seed=trained.seed + 1)
    permutations = max(config.permutations, _PERMUTATIONS_A_BLOCK * len(model.head.block_taps))
    arrays = measure(heads, batches, permutations=permutations, seed=config.seed, quiet=quiet)
    if config.over_training and model.head.block_taps:
        arrays |= measure_training(opened, trained, plan, how, quiet=quiet)
        arrays["training_gain_untrained"] = arrays["layer_gain_untrained"]
    assert weights_hash(model) == before, "fusion has changed the model"
    arrays |= {"classes": np.array(plan.images.classes), "split": np.array(plan.split)}
    opened.write_fusion_arrays(arrays)
    about = {"seeds": [config.seed], "protocol": "fusion", "version": VERSION, "data": spec.spec}
    about |= {"fingerprint": plan.images.fingerprint, "split": plan.split}
    found = main_results(arrays, {**about, "batch_size": plan.batch_size})
    opened.add_results(found)
    return found


def main_results(arrays: Arrays, about: dict[str, Any]) -> dict[str, Result]:
    """What results.json has of the arrays: means over batches with their t-intervals, by
    `measure/block` (docs/metrics.md). Those that are not defined are left out."""
    found = {}
    verdict = judge(arrays)
    for place, block in enumerate(verdict.blocks):
        of_gain = {"chance": 1.0, "p_value": block.p_value, "shown": block.shown}
        nmi_chance = float(arrays["layer_nmi_permuted"][place].mean())
        columns: dict[str, tuple[str, dict[str, Any]]] = {
            "fusion_gain": ("layer_gain", of_gain),
            "fusion_gain_untrained": ("layer_gain_untrained", {"chance": 1.0}),
            "fusion_gain_h": ("layer_gain_h", {"chance": 1.0}),
            "fusion_twin_mass": ("twin_mass", {}),
            "fusion_self_mass": ("self_mass", {}),
            "fusion_other_mass": ("other_mass", {}),
            "fusion_auroc": ("layer_auroc", {"chance": 0.5}),
            "fusion_nmi": ("layer_nmi", {"chance": nmi_chance}),
        }
        for name, (key, settings) in columns.items():
            values = arrays[key][:, place]
            # What is known by attention head: the mean over them.
            values = values.mean(1) if values.ndim == 2 else values
            found[f"{name}/{block.tap}"] = _result(estimate(values), len(values), settings, about)
    for place, tap in enumerate(arrays["taps"].tolist()):
        chance, p = float(arrays["nn1_permuted"][place].mean()), float(arrays["p_nn1"][place])
        values, settings = arrays["nn1"][:, place], {"chance": chance, "p_value": p}
        found[f"fusion_nn1/{tap}"] = _result(estimate(values), len(values), settings, about)
    if verdict.slope is not None:
        found["fusion_slope"] = _result(verdict.slope, len(arrays["layer_gain"]), {}, about)
    return {name: one for name, one in found.items() if np.isfinite(one["value"])}


def _result(found: Estimate, n: int, settings: dict[str, Any], about: dict[str, Any]) -> Result:
    interval = [found.low, found.high]
    return {"value": found.mean, "n": n, "interval": interval, **settings, **about}
