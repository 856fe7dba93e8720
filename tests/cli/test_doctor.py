import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from headwise.cli import doctor
from headwise.cli.doctor import Check, diagnose, healthy, report
from headwise.runtime import cgroup

DIAGNOSE = """
import json, sys
from headwise.cli.doctor import diagnose, healthy, report
early = [name for name in ("torch", "torchvision", "timm", "numpy") if name in sys.modules]
checks = diagnose()
report(checks)
print(json.dumps({"early": early, "healthy": healthy(checks), "checks": [vars(c) for c in checks]}))
"""


def diagnose_with(folder: Path, modules: dict[str, str]) -> dict:
    """What a process finds in which these modules are replaced."""
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    found = subprocess.run(
        [sys.executable, "-c", DIAGNOSE],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    facts = json.loads(found.stdout)
    return {**facts, "checks": {check["name"]: check for check in facts["checks"]}}


@pytest.fixture(scope="module")
def checks():
    return {check.name: check for check in diagnose()}


def test_this_installation_is_healthy(checks):
    assert healthy(list(checks.values()))
    assert checks["torch"].text == torch.__version__
    essential = {"python", "versions", "torch", "torchvision", "timm"}
    assert {name for name, check in checks.items() if check.ok} == essential
    notes = {"device", "augmentation", "cores", "memory", "cache", "disk"}
    assert {name for name, check in checks.items() if check.ok is None} == notes
    assert not any("could not be looked at" in check.text for check in checks.values())


def test_nothing_heavy_is_imported_early_and_a_torch_that_fails_is_reported(tmp_path):
    found = diagnose_with(tmp_path, {"torch": "raise ImportError('libtorch.so is missing')"})
    assert found["early"] == []
    assert not found["healthy"]
    assert found["checks"]["torch"]["ok"] is False
    assert "libtorch.so is missing" in found["checks"]["torch"]["text"]
    assert "make setup" in found["checks"]["torch"]["advice"]
    assert "timm" not in found["checks"]
    assert found["checks"]["device"]["text"].startswith("could not be looked at")
    assert found["checks"]["memory"]["text"].endswith("GiB free")


def test_builds_of_torch_and_torchvision_that_do_not_belong_together_are_recognised(tmp_path):
    found = diagnose_with(
        tmp_path,
        {
            "torch": "__version__ = '2.99.0+cpu'",
            "torchvision": "raise RuntimeError('operator torchvision::nms does not exist')",
        },
    )
    checks = found["checks"]
    assert not found["healthy"]
    assert checks["torch"] == {"name": "torch", "ok": True, "text": "2.99.0+cpu", "advice": ""}
    assert checks["torchvision"]["ok"] is False
    assert "do not belong together" in checks["torchvision"]["advice"]
    assert "make setup" in checks["torchvision"]["advice"]
    assert "uv pip install --reinstall torch torchvision" in checks["torchvision"]["advice"]


def test_versions_out_of_range_and_packages_that_miss_are_named(monkeypatch):
    lines = ["torch>=99", "numpy>=2.0", "no-such-package>=1", 'other>=1; extra == "dev"']
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    check = doctor._checked("versions", doctor._versions)
    assert check.ok is False
    torch_line = f"torch>=99 (found {metadata.version('torch')})"
    assert check.text == f"must be {torch_line}, no-such-package>=1 (found none)"


def test_a_local_build_is_in_the_range_of_its_version(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: ["torch>=2.11"])
    monkeypatch.setattr(metadata, "version", lambda name: "2.11.0+cpu")
    assert doctor._versions().ok


def test_a_python_out_of_range_fails(monkeypatch):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.10.4")
    check = doctor._python()
    assert check.ok is False
    assert metadata.metadata("headwise")["Requires-Python"] in check.advice


@pytest.mark.parametrize(
    ("quota", "threads", "advice"),
    [
        (None, 4, ""),
        (2.0, 4, "OMP_NUM_THREADS=2"),
        (2.0, 2, ""),
        (0.5, 1, ""),
        (None, 1, "OMP_NUM_THREADS, or set it to 4"),
    ],
)
def test_threads_are_compared_with_the_cores_that_may_be_used(monkeypatch, quota, threads, advice):
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(cgroup, "cpu_quota", lambda: quota)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found = doctor._cores().advice
    assert advice in found
    assert bool(found) == bool(advice)


def test_a_containers_memory_limit_counts(monkeypatch):
    monkeypatch.setattr(cgroup, "memory_left", lambda: 2**30)
    check = doctor._memory()
    assert check.text == "1.0 GiB free"
    assert "--batch-size" in check.advice


def test_the_cache_is_measured_and_one_that_cannot_be_is_said(monkeypatch, tmp_path):
    cache = tmp_path / "cache"
    (cache / "entry").mkdir(parents=True)
    with (cache / "entry" / "pixels.npy").open("wb") as file:
        file.truncate(3 * 2**30)  # sparse
    monkeypatch.setenv("HEADWISE_CACHE", str(cache))
    assert doctor._cache() == Check("cache", None, f"{cache}: 3.0 GiB", "")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "file" / "cache"))
    assert "not writable" in doctor._cache().text
    assert "HEADWISE_CACHE" in doctor._cache().advice


def test_the_report_has_a_line_a_check_advice_below_and_a_verdict():
    checks = [
        Check("python", True, "3.11.7"),
        Check("disk", None, "1.0 GiB free", "little"),
        Check("torchvision", False, "broken", "install both"),
    ]
    assert report(checks).splitlines() == [
        "ok   python       3.11.7",
        "note disk         1.0 GiB free",
        "                  -> little",
        "FAIL torchvision  broken",
        "                  -> install both",
        "to be mended: torchvision",
    ]
    assert not healthy(checks)
    assert healthy(checks[:2])
    assert report(checks[:2]).endswith("headwise can run here")
