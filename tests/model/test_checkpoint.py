"""Checkpoints: everything comes back, and a full disk costs nothing but the newest."""

import errno
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from narrow import present
from torch import nn

from headwise.heads import HeadConfig, build_head
from headwise.model import checkpoint
from headwise.model.checkpoint import TrainState
from headwise.model.optim import OptimConfig, build_optimizer, resolve


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(os.listdir(folder))


def state(optimizer: Any, seed: int = 0) -> TrainState:
    model = build_head(HeadConfig(name="mlp", output_size=8), 12, seed)
    return TrainState(model, build_optimizer(resolve(OptimConfig(name=optimizer), 1), model))


def train(state: TrainState, steps: int) -> None:
    for _ in range(steps):
        generator = torch.Generator().manual_seed(state.step)
        state.optimizer.zero_grad()
        state.model(torch.randn(6, 12, generator=generator)).square().mean().backward()
        state.optimizer.step()
        state.step += 1
        state.seconds += 0.1


def assert_equal(one: TrainState, other: TrainState) -> None:
    a, b = one.model.state_dict(), other.model.state_dict()
    assert list(a) == list(b)
    assert all(torch.equal(a[key], b[key]) for key in a)
    a, b = one.optimizer.state_dict(), other.optimizer.state_dict()
    assert a["param_groups"] == b["param_groups"]
    assert a["state"].keys() == b["state"].keys()
    for key, values in a["state"].items():
        assert values.keys() == b["state"][key].keys()
        for name, value in values.items():
            twin = b["state"][key][name]
            assert torch.equal(value, twin) if torch.is_tensor(value) else value == twin
    assert (one.step, one.seconds) == (other.step, other.seconds)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lars"])
def test_a_checkpoint_brings_everything_back(tmp_path, optimizer):
    before = state(optimizer)
    train(before, 3)
    path = checkpoint.save(before, tmp_path, keep=2)
    assert path.name == "step-00000003"
    after = state(optimizer, seed=1)
    checkpoint.load(after, path)
    assert_equal(before, after)
    # And going on is the same as not having stopped.
    train(before, 3)
    train(after, 3)
    assert_equal(before, after)
    assert len(before.optimizer.state_dict()["state"]) > 0


def test_a_checkpoint_of_channels_last_weights_loads(tmp_path):
    def made() -> TrainState:
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        model = model.to(memory_format=torch.channels_last)
        return TrainState(model, torch.optim.SGD(model.parameters(), lr=0.1))

    before, after = made(), made()
    checkpoint.load(after, checkpoint.save(before, tmp_path, keep=1))
    assert_equal(before, after)
    assert after.model.get_parameter("0.weight").is_contiguous(memory_format=torch.channels_last)


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    current = state("sgd")
    for _ in range(12):
        train(current, 1)
        checkpoint.save(current, tmp_path, keep=3)
    assert names(tmp_path) == ["step-00000010", "step-00000011", "step-00000012"]
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000012"
    assert checkpoint.latest(tmp_path / "none") is None


def test_saving_a_step_twice_keeps_the_first(tmp_path):
    current = state("sgd")
    path = checkpoint.save(current, tmp_path, keep=1)
    written = (path / "model.safetensors").stat().st_mtime_ns
    assert checkpoint.save(current, tmp_path, keep=1) == path
    assert (path / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_full_disk_leaves_the_older_checkpoint(tmp_path, monkeypatch, file):
    current = state("adamw")
    train(current, 2)
    kept = checkpoint.save(current, tmp_path, keep=1)
    older = state("adamw")
    checkpoint.load(older, kept)
    train(current, 1)

    def full(write):
        def attempt(path: Path, *arguments, **settings):
            if file in path.name:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(path, *arguments, **settings)

        return attempt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full(Path.write_bytes))
        patch.setattr(Path, "write_text", full(Path.write_text))
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(current, tmp_path, keep=1)
    assert names(tmp_path) == ["step-00000002"]
    again = state("adamw", seed=1)
    checkpoint.load(again, present(checkpoint.latest(tmp_path)))
    assert_equal(older, again)


def test_a_file_size_limit_leaves_the_older_checkpoint(tmp_path):
    """The real thing: the kernel refuses the write in the middle of a file."""
    small = TrainState(model := nn.Linear(8, 8), torch.optim.SGD(model.parameters(), lr=0.1))
    kept = checkpoint.save(small, tmp_path, keep=1)
    large = TrainState(model := nn.Linear(256, 256), torch.optim.SGD(model.parameters(), lr=0.1))
    large.step = 1
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save(large, tmp_path, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == [kept.name]
    checkpoint.load(small, kept)
