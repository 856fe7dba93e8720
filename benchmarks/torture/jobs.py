"""The commands that are disturbed: how each is started, how it goes on, and what it ends as."""

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot  # noqa: F401  (what is imported here, forks need not import)
import numpy as np
import pyarrow.parquet  # noqa: F401
import sklearn.manifold  # noqa: F401
import timm  # noqa: F401
from forked import Forked, forked
from PIL import Image

import headwise.cli.report
import headwise.comparison.compare
import headwise.evaluation.evaluate
import headwise.features.table
import headwise.pretraining.loop  # noqa: F401

_FLAGS = (
    "--augment.size 8 --encoder resnet-small --encoder.stem small-strided "
    "--encoder.widths 8 8 16 16 --batch-size 20 --device cpu --precision float32 --log-every 2 "
    "--quiet"
)
SMALL = _FLAGS.split()
TIMED = {"seconds", "views_per_second", "memory_mib"}
"""What no two runs have in common."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command in a folder of its own."""

    name: str
    words: Callable[[Path], list[str]]
    """The command that starts it."""
    end: Callable[[Path], Any]
    """What it ends as."""
    prepare: Callable[[Path], None] = lambda folder: folder.mkdir()
    ranks: int = 1

    def go_on(self, folder: Path) -> list[str]:
        """The command that goes on with it: the same one where there is nothing to resume."""
        words = self.words(folder)
        begun = words[0] in ("pretrain", "compare") and (folder / "run" / "config.json").exists()
        return [words[0], "--resume", str(folder / "run"), "--quiet"] if begun else words


def start(job: Job, words: list[str], log: Path) -> list[Forked]:
    """All ranks of a command, each in a process of its own."""
    if job.ranks == 1:
        return [forked(words, log)]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    place = {"WORLD_SIZE": job.ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}

    def joins(rank: int) -> Callable[[], None]:
        values = {name: str(value) for name, value in {**place, "RANK": rank}.items()}
        return lambda: os.environ.update(values)

    logs = [log, *(log.with_suffix(f".{rank}") for rank in range(1, job.ranks))]
    return [forked(words, path, joins(rank)) for rank, path in enumerate(logs)]


def finished(job: Job, words: list[str], log: Path) -> float:
    """Run a command to its end, which must be a good one; the seconds that it took."""
    started = time.monotonic()
    codes = [process.end(120) for process in start(job, words, log)]
    assert not any(codes), f"{job.name}: exit {codes}: {log.read_text()}"
    return time.monotonic() - started


def write_images(folder: Path) -> None:
    """Forty image files of unequal sizes in two classes, which workers decode."""
    noise = np.random.default_rng(0)
    for i in range(40):
        pixels = noise.integers(0, 256, (12 + i % 5, 12, 3), dtype=np.uint8)
        path = folder / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def jobs(base: Path) -> list[Job]:
    """All jobs. `base` has `images/` and, for commands that need one, the finished run `run/`."""
    digits = ["--data", "builtin:digits", "--limit", "60", *SMALL]
    files = ["--data", str(base / "images"), "--no-data.cache", "--workers", "2", *SMALL]
    mlp = ["--head", "mlp", "--head.output-size", "8", "--epochs", "12"]
    heads = ["--heads", "identity", "mlp", "--epochs", "3"]
    measured = ["--protocols", "knn", "geometry", "--taps", "h", "z", "--no-baselines"]
    measured += ["--device", "cpu"]

    def pretrain(words: list[str]) -> Callable[[Path], list[str]]:
        return lambda folder: ["pretrain", "--out", str(folder / "run"), *words, *mlp]

    def copied(folder: Path) -> None:
        shutil.copytree(base / "run", folder / "run")

    return [
        Job(name="pretrain, images in memory", words=pretrain(digits), end=_run),
        Job(name="pretrain, files and two workers", words=pretrain(files), end=_run),
        Job(name="pretrain, two ranks", words=pretrain(digits), end=_run, ranks=2),
        Job(
            name="compare, two heads",
            words=lambda folder: [
                "compare",
                "--out",
                str(folder / "run"),
                "--seeds",
                "1",
                *digits,
                *heads,
            ],
            end=_comparison,
        ),
        Job(
            name="evaluate",
            prepare=copied,
            words=lambda folder: ["evaluate", str(folder / "run"), *measured],
            end=lambda folder: json.loads((folder / "run" / "results.json").read_text()),
        ),
        Job(
            name="embed",
            words=lambda folder: [
                *("embed", str(base / "run"), "builtin:digits", "--out", str(folder / "h.parquet")),
                *("--device", "cpu", "--batch-size", "16", "--workers", "0", "--quiet"),
            ],
            end=lambda folder: _digest(folder / "h.parquet"),
        ),
        Job(
            name="report",
            prepare=copied,
            words=lambda folder: ["report", str(folder / "run")],
            end=lambda folder: _digest(folder / "run" / "report.html"),
        ),
    ]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(folder: Path) -> Any:
    """Its weights, its optimizer's state, and the last step of its log: a run that was asked to
    stop has one more line there."""
    run = folder / "run"
    last = max((run / "checkpoints").glob("step-????????"))
    paths = [run / "encoder.safetensors", *sorted(last.glob("*.safetensors"))]
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").open()]
    assert steps == sorted({*steps}), "steps are logged twice"
    return [*map(_digest, paths), last.name, steps[-1]]


def _comparison(folder: Path) -> Any:
    encoders = sorted((folder / "run").glob("*/encoder.safetensors"))
    summary = json.loads((folder / "run" / "summary.json").read_text())
    return [[_digest(path) for path in encoders], _untimed(summary)]


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(inner) for key, inner in value.items() if key not in TIMED}
    return value
