"""Cores and threads: what a container pays for, and the share of each rank."""

import os

import pytest
import torch
from resolved import resolved_augment
from sources import write_folder

from headwise.data import DataConfig, open_images
from headwise.errors import UserError
from headwise.model.extraction import decide_extraction
from headwise.runtime import cgroup, hardware


@pytest.mark.parametrize(
    ("quota", "ranks", "cores"),
    [
        (None, 1, 8),
        (2.0, 1, 2),
        (0.5, 1, 1),
        (16.0, 1, 8),
        (None, 3, 2),
        (4.0, 2, 2),
        (1.0, 4, 1),
    ],
)
def test_usable_cores(monkeypatch, quota, ranks, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(cgroup, "cpu_quota", lambda: quota)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert hardware.usable_cores() == cores


@pytest.mark.parametrize(
    ("files", "cores", "left"),
    [
        ({}, None, None),
        ({"cpu.max": "max 100000", "memory.max": "max", "memory.current": "5"}, None, None),
        ({"cpu.max": "150000 100000", "memory.max": "9", "memory.current": "5"}, 1.5, 4),
        (
            {
                "cpu/cpu.cfs_quota_us": "200000",
                "cpu/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": "9",
                "memory/memory.usage_in_bytes": "2",
            },
            2.0,
            7,
        ),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None, None),
    ],
)
def test_limits_of_a_container_in_both_versions(monkeypatch, tmp_path, files, cores, left):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    assert (cgroup.cpu_quota(), cgroup.memory_left()) == (cores, left)


@pytest.mark.parametrize(
    ("given", "said", "ranks", "threads"),
    [
        (3, "5", 1, 3),
        (None, "5", 1, None),
        (None, None, 1, 2),  # torch has seven, the container two
        (None, "1", 1, None),
        (None, "1", 2, 1),  # torchrun's own
        (None, "4", 2, None),
    ],
)
def test_threads(monkeypatch, given, said, ranks, threads):
    """None: torch's own number is left alone."""
    chosen = []
    monkeypatch.setattr(hardware, "threadpool_limits", lambda number, user_api: None)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(hardware, "usable_cores", lambda: 2 // ranks)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    hardware.use_threads(given)
    assert chosen == ([] if threads is None else [threads])


def test_no_threads_are_refused():
    with pytest.raises(UserError, match="--threads must be at least 1; got 0"):
        hardware.use_threads(0)


def test_files_are_decoded_by_workers_whatever_the_run_was_trained_on(tmp_path):
    """A run on images in memory has no workers of its own."""
    folder = write_folder(tmp_path, ["a/1.png", "a/2.png", "b/1.png", "b/2.png"])
    images = open_images(DataConfig(spec=str(folder), resident_mib=0))
    settings = decide_extraction(
        resolved_augment(size=8), images, device="cpu", precision="auto", workers=None
    )
    assert settings.workers == hardware.usable_cores()
