"""Damage to files: what a disk, a copy or a person does to data and to run directories."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from headwise import EvaluateConfig, embed, evaluate, resume
from headwise.report import rebuild

FILES = (
    "config.json",
    "environment.json",
    "metrics.jsonl",
    "DONE",
    "encoder.safetensors",
    "results.json",
    "evaluation.npz",
    "checkpoints/step-00000006/model.safetensors",
    "checkpoints/step-00000006/optimizer.safetensors",
    "checkpoints/step-00000006/state.json",
    "checkpoints/step-00000006/manifest.json",
)
MEASURED = EvaluateConfig(protocols=("knn",), taps=("h",), baselines=False)


def mutations(content: bytes, other: bytes, seed: int) -> dict[str, bytes | None]:
    """The content of a file after each kind of damage; None: it is gone."""
    draw = random.Random(seed)
    flips = {}
    for i in range(3):
        flipped = bytearray(content)
        if flipped:
            flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        flips[f"flip {i}"] = bytes(flipped)
    return {
        "truncate": content[: len(content) // 2],
        "truncate little": content[:-3],
        "empty": b"",
        "zero": bytes(len(content)),
        "append": content + b"\x00{",
        "swap": other,
        "gone": None,
        **flips,
    }


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    array = bytearray(data)
    # Where the headers and the directory are, damage does most.
    place = int(rng.choice([rng.integers(len(array)), len(array) - 1 - rng.integers(300)]))
    match rng.integers(4):
        case 0:
            array[place] ^= 1 << int(rng.integers(8))
        case 1:
            array[place : place + 8] = rng.bytes(8)
        case 2:
            del array[place : place + int(rng.integers(1, 40))]
        case 3:
            array[place : place + 8] = b"\xff" * 7 + b"\x7f"
    return bytes(array)


def represent(run: Path) -> list[Any]:
    out = run.with_suffix(".parquet")
    out.unlink(missing_ok=True)
    embed(run, "builtin:digits", out, workers=0, quiet=True)
    return pq.read_table(out).column("h").combine_chunks().flatten().slice(0, 64).to_pylist()


def measure(run: Path) -> float:
    return evaluate(run, config=MEASURED)["knn/h"].value


def go_on(run: Path) -> bytes:
    resume(run, quiet=True)
    return (run / "encoder.safetensors").read_bytes()


COMMANDS: dict[str, Callable[[Path], Any]] = {
    "evaluate": measure,
    "report": lambda run: rebuild(run).name,
    "embed": represent,
    "resume": go_on,
}


def outcome(call: Callable[[Path], Any], run: Path) -> Any:
    """What it returns or raises."""
    try:
        return call(run)
    except Exception as error:
        return error
