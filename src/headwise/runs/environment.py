"""The environment of a run: code, versions, hardware."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from headwise.files import Json


def environment(device: str) -> Json:
    """What a number depends on beside its config: code, versions, hardware, threads."""
    commit, dirty = _commit()
    packages = ("headwise", "torch", "torchvision", "timm", "numpy", "pillow")
    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": {
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in packages},
        },
        "device": device,
        "device_name": name,
        "threads": torch.get_num_threads(),
    }


def _commit() -> tuple[str | None, bool | None]:
    """The commit of the source tree that this package runs from, and whether it has changes;
    None where it is not a git checkout."""
    root = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", str(root)))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
