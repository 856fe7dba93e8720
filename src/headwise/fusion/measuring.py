"""All measures of a head and its controls, on all batches."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from headwise import rng
from headwise.fusion.affinity import p_value
from headwise.fusion.attention import (
    BlockMeasures,
    h_affinity,
    layer_gains,
    measure_attention,
)
from headwise.fusion.batches import EncodedBatch
from headwise.fusion.controls import HeadWithControls
from headwise.fusion.geometry import MEASURES, head_geometry, permuted_nn1, tap_names
from headwise.fusion.pictures import pictures
from headwise.heads import Head
from headwise.runtime.progress import progress

Arrays = dict[str, np.ndarray]

_UNTRAINED_MEASURES = (
    "gain",
    "same_mass",
    "other_mass",
    "twin_mass",
    "self_mass",
    "entropy",
    "effective_number",
    "auroc",
    "layer_auroc",
    "layer_nmi",
)


def measure_batches(
    heads: HeadWithControls,
    batches: Sequence[EncodedBatch],
    *,
    permutations: int,
    seed: int,
    quiet: bool = True,
) -> Arrays:
    """Return the arrays of fusion.npz, except `classes`, `split` and those over training."""
    by_batch = []
    with progress("fusion, batches", len(batches), quiet=quiet) as show:
        for i, batch in enumerate(batches):
            batch_seed = rng.seed_at(seed, "fusion", i)
            by_batch.append(measure_batch(heads, batch, permutations=permutations, seed=batch_seed))
            show(i + 1, "")
    stacked = {name: np.stack([arrays[name] for arrays in by_batch]) for name in by_batch[0]}
    numbers = with_p_values(stacked)
    numbers.pop("gain_permuted", None)  # large, and the p-values say what matters of it
    if heads.trained.block_taps:
        numbers["layer_gain_untrained"] = highest_draw(numbers["layer_gain_untrained"])
    return {
        "taps": np.array(tap_names(heads.trained), dtype=str),
        "block_taps": np.array(heads.trained.block_taps, dtype=str),
        "batch_size": np.array(len(batches[0].labels)),
        "views": np.array(2),
        **{name: array.astype(np.float32) for name, array in numbers.items()},
        **pictures(heads.trained, batches[0]),
    }


def measure_batch(
    heads: HeadWithControls, batch: EncodedBatch, *, permutations: int, seed: int
) -> Arrays:
    """Return the arrays of one batch, without the axis of batches."""
    arrays: Arrays = {}
    if heads.trained.block_taps:
        arrays = attention_arrays(heads, batch, permutations=permutations, seed=seed)
    arrays["nn1_permuted"] = permuted_nn1(heads.trained, batch, permutations, seed=seed)
    missing = np.full(len(tap_names(heads.trained)), np.nan)
    suffixes = {"": heads.trained, "_untrained": heads.untrained[0], "_uniform": heads.uniform}
    for suffix, head in suffixes.items():
        geometry = {} if head is None else head_geometry(head, batch, seed=seed)
        arrays |= {f"{name}{suffix}": geometry.get(name, missing) for name in MEASURES}
    return arrays


def attention_arrays(
    heads: HeadWithControls, batch: EncodedBatch, *, permutations: int, seed: int
) -> Arrays:
    """Return the measures of attention, by block."""
    context, (h, labels) = heads.trained.context, batch
    untrained = _by_block(heads.untrained[0], batch, 0, seed, controls=False)
    h_measures = h_affinity(h, context, 2, labels, seed=seed)
    return {
        **_by_block(heads.trained, batch, permutations, seed),
        **{f"{name}_untrained": untrained[name] for name in _UNTRAINED_MEASURES},
        "layer_gain_untrained": np.stack([layer_gains(u, h, labels) for u in heads.untrained]),
        **{name: np.array(value) for name, value in h_measures._asdict().items()},
    }


def with_p_values(arrays: Arrays) -> Arrays:
    """Replace arrays of permuted labels by their means over batches, and add their p-values. All
    arrays have an axis of batches."""
    result = dict(arrays)
    for name in arrays:
        measured = name.removesuffix("_permuted")
        if measured != name:
            observed, permuted = (arrays[key].mean(0, dtype=np.float64) for key in (measured, name))
            p = p_value(torch.from_numpy(observed), torch.from_numpy(permuted))
            result |= {name: permuted, f"p_{measured}": p.numpy()}
    return result


def highest_draw(gains: Float[np.ndarray, "B U L"]) -> Float[np.ndarray, "B L"]:
    """Return the gain of each block in that untrained head whose mean over batches is highest."""
    highest = np.nan_to_num(gains.mean(0), nan=-np.inf).argmax(0)
    return gains[:, highest, np.arange(gains.shape[2])]


@torch.no_grad()
def _by_block(
    head: Head, batch: EncodedBatch, permutations: int, seed: int, *, controls: bool = True
) -> Arrays:
    blocks = list(
        measure_attention(
            head,
            batch.h,
            batch.labels,
            permutations=permutations,
            seed=seed,
            controls=controls,
        )
    )
    names = BlockMeasures._fields
    return {name: np.array([np.asarray(getattr(b, name)) for b in blocks]) for name in names}
