"""Start-up: new processes, timed to their end or to the first step of pretraining."""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measure import alternate, data, table

HEADWISE = [sys.executable, "-c", "from headwise.cli.main import main; main()"]
PYTHON = [sys.executable, "-c"]
COMMANDS = {
    "`python -c pass`": [*PYTHON, "pass"],
    "`headwise --help`": [*HEADWISE, "--help"],
    "`import headwise`": [*PYTHON, "import headwise"],
    "`import torch`": [*PYTHON, "import torch"],
    "`import timm`": [*PYTHON, "import timm"],
    "`headwise doctor`": [*HEADWISE, "doctor"],
}

# The work of pretraining up to the end of its first step, with the time after each part.
PARTS = """
import json, sys, time
times = [("started", time.time())]
def passed(part): times.append((part, time.time()))
from headwise import augment
from headwise.pretraining import loop as pretraining
from headwise.pretraining import recipes
from headwise.model.checkpoint import TrainState
from headwise.data import open_images
from headwise.model.optim import build_optimizer
from headwise.model.build import build_model
from headwise.model.config import resolve
passed("imports")
images = open_images(sys.argv[1]).train
passed("opening the images")
config = resolve(recipes.small(), images)
model = build_model(config)
model.to(config.device)
state = TrainState(model, build_optimizer(config.optim, model))
passed("settings and model")
views = next(augment.view_batches(images, config.augment, batch_size=config.batch_size,
    steps=range(1), seed=0, device=config.device, workers=0))
pretraining.train_step(config, state, views.pixels, 1e-3)[1].item()
passed("views and first step")
print(json.dumps([(name, t - times[i][1]) for i, (name, t) in enumerate(times[1:])]))
"""


def quietly(command: list[str]) -> Callable[[], object]:
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def first_step(images: str) -> None:
    """Run `headwise pretrain` until it writes its first line of metrics.jsonl, after one step."""
    folder = Path(tempfile.mkdtemp())
    words = ["pretrain", "--recipe", "small", "--data.spec", images, "--out", str(folder / "run")]
    command = [*HEADWISE, *words, "--log-every", "1", "--quiet"]
    metrics = folder / "run" / "metrics.jsonl"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while not (metrics.exists() and metrics.stat().st_size):
            if process.poll() is not None:
                raise RuntimeError(f"headwise pretrain ended with {process.returncode}")
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def parts(images: str, rounds: int) -> dict[str, float]:
    """Median seconds of each part of the way to the first step."""
    command = [*PYTHON, PARTS, images]
    runs = [
        dict(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
        for _ in range(rounds)
    ]
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=str(data("cifar10") or "builtin:shapes"))
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    functions = {name: quietly(command) for name, command in COMMANDS.items()}
    functions["first step of `headwise pretrain`"] = lambda: first_step(flags.data)
    whole = alternate(functions, flags.rounds)
    split = {f"- {name}": taken for name, taken in parts(flags.data, flags.rounds).items()}
    print("## Start-up\n")
    print(
        "Seconds from the start of a new process. First step: until `headwise pretrain` with the "
        f"recipe `small` on {Path(flags.data).name} writes its first record; the images were "
        "decoded and cached before. Below it stand its larger parts. They are measured separately, "
        "so they do not add up to it exactly.\n"
    )
    print(table(["", "seconds"], [*whole.items(), *split.items()]))


if __name__ == "__main__":
    main()
