"""What a run says of itself: the size of its h, and its own peak memory."""

import dataclasses
import mmap
import sys

import pytest
import torch

from headwise.data import open_images
from headwise.encoders.build import EncoderConfig
from headwise.model.build import build_model
from headwise.model.checkpoint import TrainState
from headwise.model.config import PretrainConfig, resolve
from headwise.model.optim import build_optimizer
from headwise.pretraining import loop, monitoring


def test_p_is_the_size_of_h(tiny: PretrainConfig) -> None:
    encoder = EncoderConfig(name="mobilenetv3_small_050")  # whose num_features are 288
    images = open_images(tiny.data).train
    config = resolve(dataclasses.replace(tiny, encoder=encoder), images)
    model = build_model(config)
    state = TrainState(model, build_optimizer(config.optim, model))
    assert "p = 1024," in monitoring.describe(config, state, images)


def test_every_run_counts_its_own_memory(
    tiny: PretrainConfig, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reset: list[str] = []
    monkeypatch.setattr(monitoring, "reset_peak_memory", reset.append)
    config = dataclasses.replace(tiny, epochs=1, knn_every=0)
    for name in "ab":
        loop.pretrain(config, tmp_path / name, quiet=True)
    assert reset == ["cpu", "cpu"]


def test_peak_memory_of_a_gpu_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = [300 << 20]  # a fake of the allocator
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: peak.__setitem__(0, 0))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: peak[0])
    assert monitoring.memory_mib("cuda") == 300
    monitoring.reset_peak_memory("cuda")
    assert monitoring.memory_mib("cuda") == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can")
def test_peak_memory_of_a_process_is_reset() -> None:
    with mmap.mmap(-1, 100 << 20) as large:  # which no allocator keeps
        large.write(b"1" * len(large))
        before = monitoring.memory_mib("cpu")
    monitoring.reset_peak_memory("cpu")
    assert monitoring.memory_mib("cpu") < before - 50
