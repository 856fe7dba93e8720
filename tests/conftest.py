"""What all tests share: no cache outside the test, one thread, tiny images and configs."""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch

from headwise.augment import AugmentConfig
from headwise.data import DataConfig
from headwise.encoders.build import EncoderConfig
from headwise.heads import HeadConfig
from headwise.model.config import PretrainConfig

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded sets are cached away from the user's own cache."""
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """A command that runs in this process sets the level; the next test starts without it."""
    before = logging.getLogger("headwise").level
    yield
    logging.getLogger("headwise").setLevel(before)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As for users: the shapes and types of arguments are not checked at run time."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def tiny() -> PretrainConfig:
    """A run of twelve steps on sixty 8-pixel digits, a second or so."""
    return PretrainConfig(
        data=DataConfig(spec="builtin:digits", limit=60),
        augment=AugmentConfig(size=8),
        encoder=EncoderConfig(name="resnet-small", stem="small-strided", widths=(8, 8, 16, 16)),
        head=HeadConfig(name="mlp", output_size=8),
        epochs=4,
        batch_size=20,
        device="cpu",
        precision="float32",
        log_every=2,
        knn_every=2,
    )


@pytest.fixture
def headwise() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command in a process of its own."""

    def run(*words: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        code = "from headwise.cli.main import main; main()"
        command = [sys.executable, "-c", code, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout)

    return run
