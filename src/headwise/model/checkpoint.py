"""Checkpoints: directories `step-00000500` of tensors and a step, saved atomically.

Nothing else is needed to go on: data order, augmentation and learning rate are functions of the
step. No pickled code: weights are safetensors, the optimizer's state loads with `weights_only`.
"""

import io
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from headwise.files import read_json, write_atomically, write_json


@dataclass
class TrainState:
    """What changes during training."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Time spent training, over all resumptions."""


def save(state: TrainState, directory: Path, *, keep: int) -> Path:
    """Save under `directory`, then delete all but the newest `keep` checkpoints."""
    path = directory / f"step-{state.step:08d}"
    if not path.exists():
        write_atomically(path, lambda temporary: _write(state, temporary))
    for old in _checkpoints(directory)[: -max(keep, 1)]:
        shutil.rmtree(old)
    return path


def load(state: TrainState, path: Path) -> None:
    """Put a checkpoint into `state`."""
    state.model.load_state_dict(load_file(path / "model.safetensors"))
    state.optimizer.load_state_dict(torch.load(path / "optimizer.pt", weights_only=True))
    progress = read_json(path / "state.json")
    state.step, state.seconds = progress["step"], progress["seconds"]


def latest(directory: Path) -> Path | None:
    """The newest checkpoint, None where there is none."""
    checkpoints = _checkpoints(directory)
    return checkpoints[-1] if checkpoints else None


def _checkpoints(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*"))


def _write(state: TrainState, path: Path) -> None:
    path.mkdir()
    tensors = {name: value.contiguous() for name, value in state.model.state_dict().items()}
    # Through bytes: writing them fails with an OSError that says what is wrong with the disk.
    (path / "model.safetensors").write_bytes(to_bytes(tensors))
    optimizer = io.BytesIO()
    torch.save(state.optimizer.state_dict(), optimizer)
    (path / "optimizer.pt").write_bytes(optimizer.getbuffer())
    write_json(path / "state.json", {"step": state.step, "seconds": state.seconds})
