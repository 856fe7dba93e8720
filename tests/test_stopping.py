"""Nothing is lost when a command is stopped: by signals, by the death of a worker, by a closed
standard error."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import Forked, await_true, forked
from PIL import Image

import headwise.report
from headwise.comparison.compare import resume_comparison
from headwise.evaluation import evaluate as evaluation
from headwise.features import table
from headwise.model import checkpoint
from headwise.pretraining import loop
from headwise.pretraining.loop import resume
from headwise.runs.directory import Run

EPOCHS = 24


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty image files of unequal sizes, which workers decode."""
    folder = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(0)
    for i in range(40):
        pixels = noise.integers(0, 256, (12 + i % 5, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return folder


def words(files: Path, out: Path) -> list[str]:
    flags = (
        "--augment.size 8 --encoder resnet-small --encoder.stem small-strided --encoder.widths 8 8 "
        f"16 16 --head mlp --head.output-size 8 --epochs {EPOCHS} --batch-size 10 --device cpu "
        "--precision float32 --log-every 1 --workers 2 --no-data.cache --quiet"
    )
    return ["pretrain", "--data", str(files), "--out", str(out), *flags.split()]


@pytest.fixture(scope="module")
def whole(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    child = forked(words(files, folder / "run"), folder / "log")
    assert child.end() == 0, child.log.read_text()
    return Run.open(folder / "run")


def started(files: Path, folder: Path, steps: int, prepare: Any = lambda: None) -> Forked:
    """A run that has done this many steps."""
    child = forked(words(files, folder / "run"), folder / "log", prepare)
    metrics = folder / "run" / "metrics.jsonl"
    await_true(lambda: metrics.exists() and metrics.read_text().count("\n") >= steps)
    return child


def assert_same_end(run: Path, whole: Run) -> None:
    """Resumed, a run ends as the one that nothing disturbed, and keeps nothing half-written."""
    resume(run, quiet=True)
    name = "encoder.safetensors"
    assert (run / name).read_bytes() == (whole.path / name).read_bytes()
    assert not [path for path in run.rglob(".*") if path.name != ".gitignore"]


@pytest.mark.parametrize(
    ("number", "steps", "again"),
    [
        (signal.SIGTERM, 1, None),
        (signal.SIGTERM, 30, None),
        (signal.SIGTERM, 9, 0.02),
        (signal.SIGINT, 5, 0.001),
    ],
)
def test_a_signal_to_all_processes_of_a_run(files, whole, tmp_path, number, steps, again):
    """Workers leave it to their parent. The same signal within a second is the same request."""
    child = started(files, tmp_path, steps)
    time.sleep(random.Random(steps).random() / 100)
    child.signal(number)
    if again is not None:
        time.sleep(again)
        child.signal(number)
    assert child.end() == (75 if number == signal.SIGTERM else 130), child.log.read_text()
    said = child.log.read_text()
    assert said.count("finishing the step; press again to stop now") == 1
    assert "is saved at step" in said
    assert f"go on with: headwise pretrain --resume {tmp_path / 'run'}" in said
    assert "Traceback" not in said
    assert_same_end(tmp_path / "run", whole)


def test_a_checkpoint_is_finished_in_any_case(files, whole, tmp_path):
    """Two requests, more than a second apart, while one is written."""

    def slow() -> None:
        write = checkpoint._write

        def slowly(state, path, run_id):
            write(state, path, run_id)
            os.write(1, b"writing\n")
            time.sleep(2)

        checkpoint._write = slowly

    child = forked(words(files, tmp_path / "run"), tmp_path / "log", slow)
    child.await_text("writing")
    child.signal(signal.SIGTERM)
    time.sleep(1.2)
    child.signal(signal.SIGTERM)
    assert child.end() == 75, child.log.read_text()
    run = Run.open(tmp_path / "run", finished=False)
    (path,) = checkpoint.checkpoints(run.path / "checkpoints")
    checkpoint.check(path, run)
    assert "is kept; go on with: headwise pretrain --resume" in child.log.read_text()
    assert_same_end(run.path, whole)


def test_a_second_request_does_not_wait_for_the_step(files, whole, tmp_path):
    def slow() -> None:
        step = loop.train_step

        def slowly(*arguments):
            if arguments[1].step == 6:
                os.write(1, b"a long step\n")
                time.sleep(60)
            return step(*arguments)

        vars(loop)["train_step"] = slowly

    child = forked(words(files, tmp_path / "run"), tmp_path / "log", slow)
    child.await_text("a long step")
    child.signal(signal.SIGINT)
    child.await_text("press again to stop now", 1)
    time.sleep(1.1)
    child.signal(signal.SIGINT)
    assert child.end(2) == 130
    said = child.log.read_text()
    assert "stopped before the end of the step; the last checkpoint of" in said
    assert "Traceback" not in said
    resume(tmp_path / "run", quiet=True)
    name = "encoder.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (whole.path / name).read_bytes()


def test_a_worker_that_is_killed_ends_the_run_with_its_state(files, whole, tmp_path):
    child = started(files, tmp_path, 3)
    workers = child.children
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    assert child.end(20) == 75, child.log.read_text()
    *_, line = child.log.read_text().splitlines()
    assert "Traceback" not in child.log.read_text()
    assert "a decoding worker was killed by SIGKILL, most often for lack of memory" in line
    assert f"go on with: headwise pretrain --resume {tmp_path / 'run'}" in line
    assert_same_end(tmp_path / "run", whole)


def test_no_standard_error(files, whole, tmp_path):
    """`2>&-`, with progress shown."""
    shown = [word for word in words(files, tmp_path / "run") if word != "--quiet"]
    child = forked(shown, tmp_path / "log", stderr=None)
    assert child.end() == 0, child.log.read_text()
    assert_same_end(tmp_path / "run", whole)


def asleep(*arguments: Any, **settings: Any) -> None:
    os.write(1, b"at work\n")
    time.sleep(60)


@pytest.mark.parametrize(
    ("command", "module", "name", "kept"),
    [
        ("pretrain --out NEW", loop, "open_images", "nothing was written; the same command"),
        ("pretrain --resume RUN", loop, "open_images", "go on with: headwise pretrain --resume"),
        ("evaluate RUN", evaluation, "open_trained", "results of the protocols that were finished"),
        ("embed RUN FILES --out NEW.parquet", table, "all_splits", "finished parts are kept"),
        ("report RUN", headwise.report, "rebuild", "every file is the old one or the new one"),
    ],
)
def test_a_signal_outside_of_training(whole, files, tmp_path, command, module, name, kept):
    places = {"RUN": str(whole.path), "FILES": str(files), "NEW": str(tmp_path / "new")}
    if "--resume" in command:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.json").write_bytes((whole.path / "config.json").read_bytes())
        places["RUN"] = str(tmp_path / "run")
    if "--out NEW.parquet" in command:
        places["NEW.parquet"] = str(tmp_path / "new.parquet")
    line = [places.get(word, word) for word in command.split()]
    child = forked(line, tmp_path / "log", lambda: setattr(module, name, asleep))
    child.await_text("at work")
    child.signal(signal.SIGTERM)
    assert child.end() == 75
    said = child.log.read_text()
    assert f"headwise: stopped; {kept}" in said or kept in said
    assert "Traceback" not in said


def test_a_comparison_that_is_stopped_and_one_killed_before_its_config(tmp_path):
    out = tmp_path / "heads"
    flags = (
        "--data builtin:digits --data.limit 60 --augment.size 8 --encoder resnet-small "
        "--encoder.stem small-strided --encoder.widths 8 8 16 16 --heads identity mlp --epochs 12 "
        "--batch-size 20 --device cpu --precision float32 --log-every 1 --quiet --seeds 1 "
        "--no-scratch"
    )
    child = forked(["compare", "--out", str(out), *flags.split()], tmp_path / "log")
    metrics = out / "identity-seed0" / "metrics.jsonl"
    await_true(metrics.exists)
    child.signal(signal.SIGTERM)
    assert child.end() == 75, child.log.read_text()
    assert f"go on with: headwise compare --resume {out}" in child.log.read_text()
    (out / "mlp-seed0" / "checkpoints").mkdir(parents=True)
    summary = resume_comparison(out, quiet=True)
    assert set(summary["heads"]) == {"identity", "mlp"}


def test_two_processes_cannot_continue_one_run(files, tmp_path):
    child = started(files, tmp_path, 2)
    other = forked(["pretrain", "--resume", str(tmp_path / "run")], tmp_path / "other")
    assert other.end() == 2, other.log.read_text()
    *_, line = other.log.read_text().splitlines()
    assert f"{tmp_path / 'run'} is being written by another process ({child.process} on" in line
    assert child.end() == 0
