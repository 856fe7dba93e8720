"""What a run says of itself: the size of its h, and its own peak memory."""

import dataclasses
import mmap
import sys
from pathlib import Path

import pytest
import torch
from training_run import coloured

from headwise.comparison.compare import CompareConfig, compare
from headwise.data import Splits, open_images, opening
from headwise.data.images import resident_images
from headwise.encoders.build import EncoderConfig
from headwise.errors import UserError
from headwise.model.build import build_model
from headwise.model.checkpoint import TrainState
from headwise.model.config import PretrainConfig, resolve
from headwise.model.optim import build_optimizer
from headwise.pretraining import loop, monitoring
from headwise.pretraining.loop import pretrain
from headwise.runtime import distributed


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


def test_a_warm_up_of_the_whole_run_is_refused_before_anything_is_written(tmp_path, tiny):
    """0.999 of an epoch of three steps is three steps."""
    optim = dataclasses.replace(tiny.optim, warmup_epochs=0.999)
    config = dataclasses.replace(tiny, epochs=1, optim=optim)
    with pytest.raises(UserError, match="warm-up must be shorter than the run"):
        pretrain(config, tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match="warm-up must be shorter than the run"):
        compare(
            CompareConfig(pretrain=config, arms=("mlp",), seeds=1), tmp_path / "heads", quiet=True
        )
    assert not list(tmp_path.iterdir())


def test_too_few_labels_for_the_check_are_said_and_the_run_goes_on(tmp_path, tiny, caplog):
    images = coloured(12, 0)
    labels = torch.full((12,), -1)
    labels[:4] = torch.arange(4) % 3
    few = resident_images(images.pixels, labels, images.classes, images.ids)
    config = dataclasses.replace(tiny, epochs=1, batch_size=4, knn_every=1)
    run = pretrain(config, tmp_path / "run", Splits(few, None), quiet=True)
    assert "needs 5 images with labels; it is left out" in caplog.text
    assert run.done
    assert not any("knn/h" in record for record in run.metrics())


def test_batch_norm_over_ranks_on_cpus_is_said(tiny, monkeypatch, caplog):
    images = coloured(12, 0)
    resolved = resolve(dataclasses.replace(tiny, batch_size=4), images)
    model = build_model(resolved)
    monitoring.check_ahead(resolved, model, images)
    assert "BatchNorm" not in caplog.text
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monitoring.check_ahead(resolved, model, images)
    assert "each of the 2 ranks has its own statistics" in caplog.text


def test_workers_that_have_nothing_to_decode_are_said(
    tiny: PretrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    resolve(dataclasses.replace(tiny, workers=2), open_images(tiny.data).train)
    assert "--workers 2 has no effect" in caplog.text


def test_images_are_counted_before_any_is_decoded(
    tiny: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_decoded", lambda *_: pytest.fail("decoded"))
    config = dataclasses.replace(tiny, batch_size=999)
    with pytest.raises(UserError, match="at most the number of training images; got 999 for 60"):
        loop.pretrain(config, tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match="at most the number of training images"):
        compare(CompareConfig(pretrain=config, seeds=1), tmp_path / "heads", quiet=True)
