"""A fusion.npz whose every number is known, as the fusion lab writes it."""

from pathlib import Path

import numpy as np

from headwise.runs.directory import save_arrays

CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCH_SIZE = 256
PERMUTATIONS = 250
EPOCHS = (0, 5, 10, 20, 40, 80)
SPREAD = np.array([-0.3, -0.2, -0.1, 0.1, 0.2, 0.3])
"""What a batch adds to every number: mean 0, standard deviation √(0.28 / 5)."""
HALF_WIDTH = 2.570582 * np.sqrt(0.28 / 5 / 6)
"""Of the 95 % t-interval over the six batches: t for 5 degrees of freedom is 2.570582."""

GEOMETRY = (
    "nn1",
    "within",
    "between",
    "silhouette",
    "rank",
    "alignment",
    "uniformity",
    "cluster_accuracy",
)
MASSES = ("same_mass", "other_mass", "twin_mass", "self_mass")
BY_HEAD = (*MASSES, "entropy", "effective_number", "auroc")


def planted_arrays(
    *, blocks: int = 4, heads: int = 4, images: int = 32, training: bool = True
) -> dict[str, np.ndarray]:
    """Gain rises by 0.5 a block from 1.5, at every attention head by 0.05 a head besides."""
    block_taps = [f"g{2 + i}" for i in range(blocks)]
    taps = ["h", "g1", *block_taps, "z"]
    arrays: dict[str, np.ndarray] = {
        "taps": np.array(taps),
        "block_taps": np.array(block_taps, dtype=str),
        "classes": np.array(CLASSES),
        "batch_size": np.array(BATCH_SIZE),
        "views": np.array(2),
        "split": np.array("test"),
    }
    arrays |= _by_tap(len(taps)) | _by_block(blocks, heads)
    if blocks:
        arrays |= _pictures(blocks, heads, images)
        arrays |= _training(blocks) if training else {}
    return arrays


def by_batch(values: np.ndarray, scale: float = 1) -> np.ndarray:
    """[B …] float32: a mean of `values` over batches, and the known spread."""
    spread = scale * SPREAD.reshape(-1, *[1] * values.ndim)
    return (values + spread).astype(np.float32)


def write_arrays(run_path: Path, arrays: dict[str, np.ndarray]) -> None:
    run_path.mkdir(parents=True, exist_ok=True)
    save_arrays(run_path / "fusion.npz", arrays)


def _by_tap(count: int) -> dict[str, np.ndarray]:
    arrays = {}
    depth = np.linspace(0, 1, count)
    for i, name in enumerate(GEOMETRY):
        for end, slope in (("", 0.3), ("_uniform", 0.15), ("_untrained", -0.1)):
            arrays[name + end] = by_batch(0.3 + 0.04 * i + slope * depth, 0.1)
    noise = np.random.default_rng(0).normal(0.1, 0.01, (count, PERMUTATIONS))
    return arrays | {"nn1_permuted": noise, "p_nn1": np.full(count, 1 / 251)}


def _by_block(blocks: int, heads: int) -> dict[str, np.ndarray]:
    layer = 1.5 + 0.5 * np.arange(blocks)
    each = layer[:, None] + 0.05 * np.arange(heads)
    noise = np.random.default_rng(1).normal(1, 0.02, (blocks, PERMUTATIONS))
    arrays = {
        "gain": by_batch(each),
        "gain_untrained": by_batch(np.full((blocks, heads), 1.1), 0.1),
        "gain_h": by_batch(np.full((blocks, heads), 1.4), 0.5),
        "gain_input": by_batch(np.full((blocks, heads), 1.3), 0.5),
        "layer_gain": by_batch(layer),
        "layer_gain_untrained": by_batch(np.full(blocks, 1.1), 0.1),
        "layer_gain_h": by_batch(np.full(blocks, 1.4), 0.5),
        "layer_gain_input": by_batch(np.full(blocks, 1.3), 0.5),
        "auroc_h": by_batch(np.array(0.6), 0.1),
        "layer_nmi_h": by_batch(np.array(0.3), 0.1),
        "p_gain": np.full((blocks, heads), 1 / 251),
    }
    for i, name in enumerate(BY_HEAD):
        values = 0.12 + 0.1 * i + 0.01 * np.arange(blocks)[:, None] + np.zeros(heads)
        arrays[name] = by_batch(values, 0.1)
        arrays[f"{name}_untrained"] = by_batch(values - 0.1, 0.1)
    for name, value in (("layer_auroc", 0.7), ("layer_nmi", 0.4)):
        arrays[name] = by_batch(value + 0.02 * np.arange(blocks), 0.1)
        arrays[f"{name}_untrained"] = by_batch(np.full(blocks, 0.5), 0.1)
    for name in ("layer_gain", "layer_auroc", "layer_nmi"):
        arrays |= {f"{name}_permuted": noise, f"p_{name}": np.full(blocks, 1 / 251)}
    return arrays


def _pictures(blocks: int, heads: int, images: int) -> dict[str, np.ndarray]:
    """Attention that prefers the class by the gain, the twin tenfold; tokens that move apart."""
    labels = np.tile(np.sort(np.arange(images) % len(CLASSES)), 2)
    noise = np.random.default_rng(2)
    rows = len(labels)
    image = np.arange(rows) % images
    same, twin = labels[:, None] == labels, image[:, None] == image
    logits = noise.normal(0, 0.5, (blocks, heads, rows, rows))
    strength = np.log(1.5 + np.arange(blocks))[:, None, None, None]
    logits += strength * same + np.log(10) * (twin & ~np.eye(rows, dtype=bool))
    weights = np.exp(logits) / (2 * BATCH_SIZE)
    angle = 2 * np.pi * labels / len(CLASSES)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    depth = np.linspace(0.1, 0.8, blocks + 1)[:, None, None]
    shift = np.tile(noise.normal(0, 1, (images, 2)), (2, 1)) + noise.normal(0, 0.3, (rows, 2))
    return {
        "maps": weights.astype(np.float16),
        "map_labels": labels,
        "path": (depth * circle + 0.3 * (1 - depth) * shift).astype(np.float32),
        "path_taps": np.array([f"g{1 + i}" for i in range(blocks + 1)]),
        "path_labels": labels,
    }


def _training(blocks: int) -> dict[str, np.ndarray]:
    rise = np.array(EPOCHS)[:, None] / EPOCHS[-1]
    flat = np.zeros((len(EPOCHS), blocks))
    by_checkpoint = {
        "gain": (1 + rise * (0.5 + 0.5 * np.arange(blocks)), 0.2),
        "gain_h": (1 + 0.4 * rise + flat, 0.1),
        "twin_mass": (0.1 + 0.2 * rise + flat, 0.1),
        "nn1_h": (0.2 + 0.5 * rise[:, 0], 0.1),
    }
    arrays = {
        f"training_{name}": np.moveaxis(by_batch(values, scale), 0, 1)
        for name, (values, scale) in by_checkpoint.items()
    }
    arrays["training_gain_untrained"] = by_batch(np.full(blocks, 1.1), 0.1)
    return arrays | {"training_epochs": np.array(EPOCHS, dtype=float)}
