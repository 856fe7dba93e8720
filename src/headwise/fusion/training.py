"""Attention at every kept checkpoint of a run, on the same images and views."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from headwise.fusion.attention import measure_attention
from headwise.fusion.batches import BatchPlan, EncodedBatch, draw_batches
from headwise.fusion.geometry import nearest_neighbours, same_label_share
from headwise.model import checkpoint
from headwise.model.build import build_model
from headwise.model.contrastive import ContrastiveModel
from headwise.model.trained import Trained
from headwise.runs.directory import Run
from headwise.runtime.progress import progress


def measure_training(trained: Trained, plan: BatchPlan, *, quiet: bool) -> dict[str, np.ndarray]:
    """Return `training_epochs` [C], `training_gain`, `training_gain_h`, `training_twin_mass`
    [C B L] and `training_nn1_h` [C B], for the initial weights and every kept checkpoint."""
    paths, extraction = kept_checkpoints(trained.run), trained.extraction
    measured = []
    with progress("fusion, checkpoints", 1 + len(paths), quiet=quiet) as show:
        for model in _models(trained, paths):
            model.to(extraction.device).eval()
            batches = draw_batches(model.encoder, plan, extraction)
            measured.append([_measures(model, batch, plan.seed) for batch in batches])
            show(len(measured), "")
    return {
        "training_epochs": checkpoint_epochs(paths, trained.config.epochs),
        **{
            name: np.array([[b[name] for b in c] for c in measured], np.float32)
            for name in measured[0][0]
        },
    }


def kept_checkpoints(run: Run) -> list[Path]:
    """Return the checkpoints in the order of training. The last is that of the finished run."""
    return checkpoint.checkpoints(run.path / "checkpoints")


def checkpoint_epochs(paths: list[Path], epochs: int) -> np.ndarray:
    """Return 0 and then the epoch of each checkpoint, computed from its step and the last step."""
    steps = [int(path.name.removeprefix("step-")) for path in paths]
    return np.array([0, *(epochs * step / steps[-1] for step in steps)], np.float32)


def _models(trained: Trained, paths: list[Path]) -> Iterator[ContrastiveModel]:
    """Yield the model with its initial weights, then with those of each checkpoint."""
    model = build_model(trained.config)
    yield model
    for path in paths:
        model.load_state_dict(checkpoint.weights(path, trained.run))
        yield model


@torch.no_grad()
def _measures(model: ContrastiveModel, batch: EncodedBatch, seed: int) -> dict[str, np.ndarray]:
    blocks = list(measure_attention(model.head, batch.h, batch.labels, permutations=0, seed=seed))
    first = batch.h.chunk(2)[0]
    return {
        "training_gain": np.array([block.layer_gain for block in blocks]),
        "training_gain_h": np.array([block.layer_gain_h for block in blocks]),
        "training_twin_mass": np.array([block.twin_mass.mean() for block in blocks]),
        "training_nn1_h": same_label_share(nearest_neighbours(first), batch.labels).cpu().numpy(),
    }
