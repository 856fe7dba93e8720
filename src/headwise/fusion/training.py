"""Attention at every checkpoint that a run kept, on the same images and views."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from headwise.features.extract import ExtractConfig
from headwise.fusion.attention import measure_attention
from headwise.fusion.batches import Batch, Plan, draw_batches
from headwise.fusion.geometry import nearest, right_neighbours
from headwise.model.build import build_model
from headwise.model.config import PretrainConfig
from headwise.model.contrastive import ContrastiveModel
from headwise.runs.directory import Run
from headwise.runtime.progress import progress


def measure_training(
    run: Run, config: PretrainConfig, plan: Plan, how: ExtractConfig, *, quiet: bool
) -> dict[str, np.ndarray]:
    """`training_epochs` [C], `training_gain`, `training_gain_h`, `training_twin_mass` [C B L] and
    `training_nn1_h` [C B], of the weights before training and of every kept checkpoint."""
    paths = kept_checkpoints(run)
    found = []
    with progress("fusion, checkpoints", 1 + len(paths), quiet=quiet) as show:
        for model in _models(config, paths):
            model.to(how.device).eval()
            batches = draw_batches(model.encoder, plan, how)
            found.append([_measures(model, batch, plan.seed) for batch in batches])
            show(len(found), "")
    return {
        "training_epochs": epochs_of(paths, config.epochs),
        **{
            name: np.array([[b[name] for b in c] for c in found], np.float32)
            for name in found[0][0]
        },
    }


def kept_checkpoints(run: Run) -> list[Path]:
    """The oldest first; the last is that of the finished run."""
    return sorted((run.path / "checkpoints").glob("step-*"))


def epochs_of(paths: list[Path], epochs: int) -> np.ndarray:
    """0, then of each checkpoint how many epochs it had behind it, by its step and the last's."""
    steps = [int(path.name.removeprefix("step-")) for path in paths]
    return np.array([0, *(epochs * step / steps[-1] for step in steps)], np.float32)


def _models(config: PretrainConfig, paths: list[Path]) -> Iterator[ContrastiveModel]:
    """First as initialised."""
    model = build_model(config)[1]
    yield model
    for path in paths:
        model.load_state_dict(load_file(path / "model.safetensors"))
        yield model


@torch.no_grad()
def _measures(model: ContrastiveModel, batch: Batch, seed: int) -> dict[str, np.ndarray]:
    blocks = list(measure_attention(model.head, batch.h, batch.labels, permutations=0, seed=seed))
    first = batch.h.chunk(2)[0]
    return {
        "training_gain": np.array([block.layer_gain for block in blocks]),
        "training_gain_h": np.array([block.layer_gain_h for block in blocks]),
        "training_twin_mass": np.array([block.twin_mass.mean() for block in blocks]),
        "training_nn1_h": right_neighbours(nearest(first), batch.labels).cpu().numpy(),
    }
