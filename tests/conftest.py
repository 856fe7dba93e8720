"""What all tests share: no cache outside the test, one thread, tiny images and configs."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import jaxtyping
import pytest
import torch
from forked import forked

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


@pytest.fixture(scope="session")
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
def headwise(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., CompletedProcess[str]]:
    """Run the command in a process of its own, which need not import everything again."""

    def run(*words: str | Path, timeout: float = 120) -> CompletedProcess[str]:
        folder = tmp_path_factory.mktemp("command")
        out, errors = folder / "out", folder / "errors"
        code = forked([str(word) for word in words], out, stderr=errors).end(timeout)
        return CompletedProcess(words, code, out.read_text(), errors.read_text())

    return run
