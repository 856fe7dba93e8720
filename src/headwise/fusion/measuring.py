"""All measures of a head and its controls, on all batches."""

from collections.abc import Sequence

import numpy as np
import torch

from headwise import rng
from headwise.fusion.affinity import p_value
from headwise.fusion.attention import BlockMeasures, h_affinity, measure_attention
from headwise.fusion.batches import Batch
from headwise.fusion.controls import Heads
from headwise.fusion.geometry import MEASURES, head_geometry, permuted_nn1, tap_names
from headwise.fusion.pictures import pictures
from headwise.heads import Head
from headwise.runtime.progress import progress

Arrays = dict[str, np.ndarray]

_OF_THE_UNTRAINED = (
    "gain",
    "same_mass",
    "other_mass",
    "twin_mass",
    "self_mass",
    "entropy",
    "effective_number",
    "auroc",
    "layer_gain",
    "layer_auroc",
    "layer_nmi",
)


def measure_batches(
    heads: Heads, batches: Sequence[Batch], *, permutations: int, seed: int, quiet: bool = True
) -> Arrays:
    """The arrays of fusion.npz, but for `classes`, `split` and those over training."""
    found = []
    with progress("fusion, batches", len(batches), quiet=quiet) as show:
        for number, batch in enumerate(batches):
            own = rng.seed_at(seed, "fusion", number)
            found.append(measure_batch(heads, batch, permutations=permutations, seed=own))
            show(number + 1, "")
    over_batches = {name: np.stack([one[name] for one in found]) for name in found[0]}
    numbers = with_p_values(over_batches)
    numbers.pop("gain_permuted", None)  # large, and its p-values are there
    return {
        "taps": np.array(tap_names(heads.trained), dtype=str),
        "block_taps": np.array(heads.trained.block_taps, dtype=str),
        "batch_size": np.array(len(batches[0].labels)),
        "views": np.array(2),
        **{name: array.astype(np.float32) for name, array in numbers.items()},
        **pictures(heads.trained, batches[0]),
    }


def measure_batch(heads: Heads, batch: Batch, *, permutations: int, seed: int) -> Arrays:
    """One batch's share: the same arrays without the axis of batches."""
    found: Arrays = {}
    if heads.trained.block_taps:
        found = attention_arrays(heads, batch, permutations=permutations, seed=seed)
    found["nn1_permuted"] = permuted_nn1(heads.trained, batch, permutations, seed=seed)
    nowhere = np.full(len(tap_names(heads.trained)), np.nan)
    subjects = {"": heads.trained, "_untrained": heads.untrained, "_uniform": heads.uniform}
    for suffix, head in subjects.items():
        measured = {} if head is None else head_geometry(head, batch, seed=seed)
        found |= {f"{name}{suffix}": measured.get(name, nowhere) for name in MEASURES}
    return found


def attention_arrays(heads: Heads, batch: Batch, *, permutations: int, seed: int) -> Arrays:
    """The measures of attention, by block."""
    context, (h, labels) = heads.trained.context, batch
    untrained = _by_block(heads.untrained, batch, 0, seed)
    of_h = h_affinity(h, context, 2, labels, seed=seed)
    return {
        **_by_block(heads.trained, batch, permutations, seed),
        **{f"{name}_untrained": untrained[name] for name in _OF_THE_UNTRAINED},
        **{name: np.array(value) for name, value in of_h._asdict().items()},
    }


def with_p_values(arrays: Arrays) -> Arrays:
    """Arrays with an axis of batches; those of permuted labels as means over it, with their
    p-values beside them."""
    found = dict(arrays)
    for name in arrays:
        measured = name.removesuffix("_permuted")
        if measured != name:
            observed, permuted = (arrays[key].mean(0, dtype=np.float64) for key in (measured, name))
            p = p_value(torch.from_numpy(observed), torch.from_numpy(permuted))
            found |= {name: permuted, f"p_{measured}": p.numpy()}
    return found


@torch.no_grad()
def _by_block(head: Head, batch: Batch, permutations: int, seed: int) -> Arrays:
    blocks = list(
        measure_attention(head, batch.h, batch.labels, permutations=permutations, seed=seed)
    )
    names = BlockMeasures._fields
    return {name: np.array([np.asarray(getattr(b, name)) for b in blocks]) for name in names}
