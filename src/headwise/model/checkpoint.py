"""Checkpoints: directories `step-00000500` of tensors and a step, saved atomically.

Nothing else is needed to go on: data order, augmentation and learning rate are functions of the
step. A manifest has the size and SHA-256 of every file and the run's id, so that damage and a
checkpoint of another run are noticed. No pickled code: tensors are safetensors, and the optimizer's
state of version 0.1 (`optimizer.pt`) loads with `weights_only`.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from headwise.errors import UserError
from headwise.files import Json, read_object, write_atomically, write_json
from headwise.runs.directory import Run
from headwise.runtime.interrupts import finished_first

log = logging.getLogger("headwise")

_MODEL, _OPTIMIZER, _OLD_OPTIMIZER = "model.safetensors", "optimizer.safetensors", "optimizer.pt"
_STATE, _MANIFEST = "state.json", "manifest.json"


class DamagedCheckpoint(Exception):
    """A checkpoint's files are not those that were saved."""


StateDict = dict[str, Any]
"""What torch calls a state dict."""


@dataclass
class TrainState:
    """What changes during training."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Time spent training, over all resumptions."""


def save(state: TrainState, directory: Path, *, keep: int, run_id: str | None = None) -> Path:
    """Save under `directory`, then delete all but the newest `keep` checkpoints. A signal does not
    end the process before this is done."""
    path = directory / f"step-{state.step:08d}"
    with finished_first():
        if not path.exists():
            size = sum(t.nbytes for t in _tensors(state.model.state_dict(), state.optimizer))
            write_atomically(path, lambda temporary: _write(state, temporary, run_id), size=size)
        for old in checkpoints(directory)[: -max(keep, 1)]:
            shutil.rmtree(old)
    return path


def load(state: TrainState, path: Path) -> None:
    """Put a checkpoint into `state`. Raises `DamagedCheckpoint` if that is not possible."""
    try:
        state.model.load_state_dict(load_file(path / _MODEL))
        state.optimizer.load_state_dict(_optimizer_state(path))
        progress = read_object(path / _STATE)
        state.step, state.seconds = int(progress["step"]), float(progress["seconds"])
    except Exception as error:  # each library has errors of its own for a broken file
        raise DamagedCheckpoint(f"{path} is damaged: {_line(error)}") from None


def load_newest(state: TrainState, run: Run) -> list[Path]:
    """Put the newest checkpoint that is not damaged into `state`, and return the damaged ones.
    Without a checkpoint `state` stays as it is.

    Raises `UserError` if all are damaged, and for a checkpoint of another run.
    """
    damaged: list[Path] = []
    reason = ""
    for path in reversed(checkpoints(run.path / "checkpoints")):
        try:
            check(path, run)
            load(state, path)
        except DamagedCheckpoint as error:
            damaged.append(path)
            reason = str(error)
            log.warning("%s; trying the checkpoint before it", error)
        else:
            return damaged
    if damaged:
        raise UserError(
            f"{reason}; no other checkpoint of {run.path} can be read; to start again from the "
            f"first step, remove {run.path / 'checkpoints'}"
        )
    return []


def set_aside(damaged: list[Path]) -> None:
    """Rename damaged checkpoints, so that others can be saved at their steps."""
    for path in damaged:
        aside = path.with_name(f"{path.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)


def weights(path: Path, run: Run) -> dict[str, Tensor]:
    """The weights of a checkpoint, checked. Raises `UserError` if they are damaged."""
    try:
        check(path, run)
        return load_file(path / _MODEL)
    except UserError:
        raise
    except Exception as error:
        told = _line(error) if isinstance(error, DamagedCheckpoint) else f"{path} is damaged"
        raise UserError(f"{told}; make it again with: {run.continued_with}") from None


def check(path: Path, run: Run) -> None:
    """Raise `DamagedCheckpoint` if a file is not as the manifest says, and `UserError` if the
    checkpoint is of another run. Version 0.1 wrote no manifest: then nothing is known."""
    if not (path / _MANIFEST).exists():
        return
    try:
        manifest = read_object(path / _MANIFEST)
        files, owner = dict(manifest["files"]), manifest["run"]
        wrong = [name for name, about in files.items() if _about(path / name) != about]
        if manifest["step"] != int(path.name.removeprefix("step-")):
            wrong.append(_MANIFEST)
    except (UserError, OSError, KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpoint(f"{path} is damaged: {_line(error)}") from None
    if wrong:
        raise DamagedCheckpoint(f"{path} is damaged: {wrong[0]} is not what was saved")
    if owner is not None and run.id is not None and owner != run.id:
        raise UserError(
            f"{path} must be a checkpoint of this run; it is of another one; remove it, or put the "
            "right one back"
        )


def owner_of_newest(directory: Path) -> str | None:
    """The id of the run that saved the newest checkpoint; None if it is not known."""
    path = latest(directory)
    try:
        return None if path is None else str(read_object(path / _MANIFEST)["run"])
    except (UserError, OSError, KeyError):
        return None


def latest(directory: Path) -> Path | None:
    """The newest checkpoint, None where there is none."""
    found = checkpoints(directory)
    return found[-1] if found else None


def checkpoints(directory: Path) -> list[Path]:
    """All checkpoints in the order of their steps. Other names in the directory are ignored."""
    found = [p for p in directory.glob("step-*") if re.fullmatch(r"step-\d{8,}", p.name)]
    return sorted((path for path in found if path.is_dir()), key=lambda path: int(path.name[5:]))


def _write(state: TrainState, path: Path, run_id: str | None) -> None:
    path.mkdir()
    tensors = {name: value.contiguous() for name, value in state.model.state_dict().items()}
    # Through bytes: writing them fails with an OSError that says what is wrong with the disk.
    (path / _MODEL).write_bytes(to_bytes(tensors))
    (path / _OPTIMIZER).write_bytes(_optimizer_bytes(state.optimizer.state_dict()))
    write_json(path / _STATE, {"step": state.step, "seconds": state.seconds})
    files = {name: _about(path / name) for name in (_MODEL, _OPTIMIZER, _STATE)}
    write_json(path / _MANIFEST, {"run": run_id, "step": state.step, "files": files})


def _about(path: Path) -> Json:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _tensors(model: StateDict, optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    values = [v for entries in optimizer.state.values() for v in entries.values()]
    yield from (v for v in (*model.values(), *values) if isinstance(v, Tensor))


def _optimizer_bytes(state: StateDict) -> bytes:
    """An optimizer's state as safetensors, with everything but the tensors as JSON."""
    entries = {f"{i}/{k}": v for i, own in state["state"].items() for k, v in own.items()}
    tensors = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
    about = {
        "param_groups": state["param_groups"],
        "values": {key: value for key, value in entries.items() if key not in tensors},
        "channels_last": sorted(key for key, v in tensors.items() if _is_channels_last(v)),
    }
    contiguous = {key: value.contiguous() for key, value in tensors.items()}
    return to_bytes(contiguous, {"optimizer": json.dumps(about, sort_keys=True)})


def _optimizer_state(path: Path) -> StateDict:
    """What `_optimizer_bytes` was given, on the CPU; or the file of version 0.1."""
    if (path / _OLD_OPTIMIZER).exists():
        return torch.load(path / _OLD_OPTIMIZER, weights_only=True, map_location="cpu")
    with safe_open(path / _OPTIMIZER, "pt") as file:
        about = json.loads(file.metadata()["optimizer"])
        names = file.keys()
        entries = about["values"] | {name: file.get_tensor(name) for name in names}
    for key in about["channels_last"]:  # elementwise operations are fast in the weights' layout
        entries[key] = entries[key].contiguous(memory_format=torch.channels_last)
    state: dict[int, StateDict] = {}
    for key, value in entries.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = value
    groups = [
        {k: tuple(v) if isinstance(v, list) and k != "params" else v for k, v in group.items()}
        for group in about["param_groups"]
    ]
    return {"state": state, "param_groups": groups}


def _is_channels_last(value: Tensor) -> bool:
    last = value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last)
    return last and not value.is_contiguous()


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
