"""The run directory: the interface between commands. See docs/run-directory.md for its files."""

import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headwise.errors import UserError
from headwise.files import read_json, write_atomically, write_json, write_text

RESULTS_SCHEMA = 1
"""The layout of results.json."""
FUSION_FILE = "fusion.npz"


class Run:
    """One run directory. Nothing is written before `create`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def create(path: Path, config: dict[str, Any], device: str) -> "Run":
        """Make the directory and write config.json and environment.json."""
        refuse_existing(path)
        run = Run(path)
        write_json(path / "config.json", config)
        write_json(path / "environment.json", environment(device))
        return run

    @staticmethod
    def open(path: Path, *, finished: bool = True) -> "Run":
        """An existing run; by default only one whose pretraining has finished."""
        if not (path / "config.json").is_file():
            raise UserError(f"run {path} must be a directory with a config.json; found none there")
        run = Run(path)
        if finished and not run.done:
            raise UserError(
                f"run {path} must be finished; its pretraining stopped before the end; "
                f"finish it with: headwise pretrain --resume {path}"
            )
        return run

    @property
    def config(self) -> dict[str, Any]:
        path = self.path / "config.json"
        try:
            return read_json(path)
        except json.JSONDecodeError as error:
            raise UserError(f"{path} must be JSON; {error}") from None

    @property
    def done(self) -> bool:
        return (self.path / "DONE").exists()

    def finish(self) -> None:
        write_text(self.path / "DONE", "")

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl; a last line cut short by a crash is left out."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def rewind(self, step: int) -> None:
        """Drop the records after `step`: a resumed run logs them again."""
        kept = [json.dumps(record) + "\n" for record in self.metrics() if record["step"] <= step]
        write_text(self.path / "metrics.jsonl", "".join(kept))

    @property
    def results(self) -> dict[str, Any]:
        """By name (docs/metrics.md)."""
        path = self.path / "results.json"
        if not path.exists():
            return {}
        found = read_json(path)
        if found.get("schema") != RESULTS_SCHEMA:
            raise UserError(
                f"{path} must have schema {RESULTS_SCHEMA}; got {found.get('schema')}; "
                "move it away and evaluate again"
            )
        return found["results"]

    def add_results(self, results: dict[str, Any]) -> None:
        """Merge into results.json; a value of the same name is replaced."""
        merged = {**self.results, **results}
        write_json(self.path / "results.json", {"schema": RESULTS_SCHEMA, "results": merged})

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What evaluations found beside numbers, by name (docs/metrics.md)."""
        return load_arrays(self.path / "evaluation.npz")

    def add_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Merge into evaluation.npz; an array of the same name is replaced."""
        merged = {**self.arrays, **arrays}
        write_atomically(self.path / "evaluation.npz", lambda path: save_arrays(path, merged))

    @property
    def fusion_arrays(self) -> dict[str, np.ndarray]:
        """What `headwise fusion` found, by name (docs/fusion.md); none where it has not run."""
        return load_arrays(self.path / FUSION_FILE)

    def write_fusion_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        write_atomically(self.path / FUSION_FILE, lambda path: save_arrays(path, arrays))


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz; none where it is not there."""
    if not path.exists():
        return {}
    with np.load(path) as found:
        return dict(found)


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An .npz of exactly this name."""
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def refuse_existing(path: Path, *, resumable: bool = True) -> None:
    """Raise `UserError` where `path` is something else than a missing or empty directory."""
    # Hidden files are temporary ones that a killed process left.
    if path.exists() and (not path.is_dir() or any(path.glob("[!.]*"))):
        raise UserError(
            f"--out must be a new or empty directory; {path} exists; choose another"
            + (", or go on with it: --resume" if resumable else "")
        )


def environment(device: str) -> dict[str, Any]:
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
