"""A run that is stopped anywhere and resumed ends as if it had not been stopped."""

import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from forked import Forked, await_true, in_fork
from safetensors.torch import load_file

from headwise.data import open_images
from headwise.errors import UserError
from headwise.files import read_json, write_json
from headwise.model import checkpoint
from headwise.model.config import PretrainConfig
from headwise.model.optim import OptimConfig
from headwise.pretraining.loop import pretrain, resume
from headwise.runtime.interrupts import Interrupted


def start(config: PretrainConfig, out: Path, pause: float) -> Forked:
    """Start or resume a run in a process of its own, which says every step that it saved."""

    def run() -> None:
        save = checkpoint.save

        def slow(
            state: checkpoint.TrainState, directory: Path, *, keep: int, run_id: str | None = None
        ) -> Path:
            path = save(state, directory, keep=keep, run_id=run_id)
            os.write(1, f"{state.step}\n".encode())
            time.sleep(pause)
            return path

        checkpoint.save = slow  # type: ignore[assignment]
        try:
            if (out / "config.json").exists():
                resume(out, quiet=True)
            else:
                pretrain(config, out, quiet=True)
        except Interrupted as stop:
            sys.exit(stop.exit_code)

    return in_fork(run, out.with_suffix(".log"))


def same_ends(one: Path, other: Path) -> None:
    """Equal weights, bit for bit, and equal records but for the time they took."""
    for name in ("encoder.safetensors", "checkpoints/step-00000012/model.safetensors"):
        mine, theirs = load_file(one / name), load_file(other / name)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    states = {
        (path / "checkpoints/step-00000012/optimizer.safetensors").read_bytes()
        for path in (one, other)
    }
    assert len(states) == 1, "equal states give equal bytes"
    timed = {"seconds", "views_per_second", "memory_mib"}
    records = [
        [
            {key: value for key, value in json.loads(line).items() if key not in timed}
            for line in (path / "metrics.jsonl").read_text().splitlines()
        ]
        for path in (one, other)
    ]
    assert records[0] == records[1]


@pytest.mark.parametrize("optimizer", ["adamw", "lars"])
def test_killed_and_resumed(tmp_path: Path, tiny: PretrainConfig, optimizer: Any) -> None:
    """SIGKILL after the first checkpoint, and again later: the end is the same."""
    optim = dataclasses.replace(tiny.optim, name=optimizer, lr=0.01)
    tiny = dataclasses.replace(tiny, optim=optim)
    pretrain(tiny, tmp_path / "whole", quiet=True)
    for _ in range(2):
        child = start(tiny, tmp_path / "killed", pause=30)
        child.await_text("\n")
        child.signal(signal.SIGKILL)
        assert child.end() == -signal.SIGKILL
        assert not (tmp_path / "killed" / "DONE").exists()
    resume(tmp_path / "killed", quiet=True)
    same_ends(tmp_path / "whole", tmp_path / "killed")


def test_killed_before_the_first_checkpoint(tmp_path: Path, tiny: PretrainConfig) -> None:
    pretrain(tiny, tmp_path / "whole", quiet=True)
    child = start(tiny, tmp_path / "killed", pause=0)
    await_true((tmp_path / "killed" / "config.json").exists)
    child.signal(signal.SIGKILL)
    child.end()
    for path in (tmp_path / "killed" / "checkpoints").glob("step-*"):
        for file in path.iterdir():  # it was quicker than the kill
            file.unlink()
        path.rmdir()
    (tmp_path / "killed" / "DONE").unlink(missing_ok=True)
    resume(tmp_path / "killed", quiet=True)
    same_ends(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_asked_to_stop(tmp_path: Path, tiny: PretrainConfig, number: int, code: int) -> None:
    """The step is finished and saved, the exit code says which signal, and resuming goes on."""
    pretrain(tiny, tmp_path / "whole", quiet=True)
    child = start(tiny, tmp_path / "stopped", pause=1)
    child.await_text("3\n")
    child.signal(number)
    assert child.end() == code
    # The signal came in the pause after the third step's checkpoint, so the fourth was the last.
    latest = checkpoint.latest(tmp_path / "stopped" / "checkpoints")
    assert latest is not None
    assert latest.name == "step-00000004"
    resume(tmp_path / "stopped", quiet=True)
    records = (tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in records] == sorted(
        {json.loads(line)["step"] for line in records}
    )
    for name in ("encoder.safetensors",):
        mine, theirs = load_file(tmp_path / "whole" / name), load_file(tmp_path / "stopped" / name)
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_a_finished_run_is_left_alone(tmp_path: Path, tiny: PretrainConfig) -> None:
    run = pretrain(tiny, tmp_path / "run", quiet=True)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    resume(run.path, quiet=True)
    assert before == {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}


def test_loss_that_is_not_finite(tmp_path: Path, tiny: PretrainConfig) -> None:
    """The run stops, names the step, and keeps the last good checkpoint."""
    wild = dataclasses.replace(tiny.optim, name="sgd", lr=1e30, warmup_epochs=2.0)
    with pytest.raises(
        UserError, match=r"at step \d+ it was nan, with learning rate .* temperature"
    ):
        pretrain(dataclasses.replace(tiny, optim=wild), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "DONE").exists()
    for path in (tmp_path / "run" / "checkpoints").glob("step-*"):
        weights = load_file(path / "model.safetensors")
        assert all(
            value.isfinite().all() for value in weights.values() if value.is_floating_point()
        )


GOLDEN = {
    "adamw": [4.284851, 4.077394, 3.913348, 3.925329, 4.040141],
    "lars": [4.284851, 4.077394, 4.053386, 4.021506, 3.752738],
}


@pytest.mark.parametrize("optimizer", GOLDEN)
def test_golden(tmp_path: Path, tiny: PretrainConfig, optimizer: Literal["adamw", "lars"]) -> None:
    """Five steps in float32. A change of these numbers needs a line under *Numerics* in the
    changelog; a refactor does not change them."""
    optim = OptimConfig(name=optimizer)
    config = dataclasses.replace(tiny, epochs=2, log_every=1, knn_every=0, optim=optim)
    run = pretrain(config, tmp_path / "run", open_images(config.data), quiet=True)
    losses = [record["loss"] for record in run.metrics()[:5]]
    assert losses == pytest.approx(GOLDEN[optimizer], rel=1e-5)


def test_interrupted_is_not_an_error_of_the_user() -> None:
    assert not issubclass(Interrupted, UserError)
    assert Interrupted("saved", 75).exit_code == 75


def test_another_process_cannot_start_in_the_same_place(
    tmp_path: Path, tiny: PretrainConfig
) -> None:
    run = pretrain(tiny, tmp_path / "run", quiet=True)
    before = sorted(os.listdir(run.path))
    with pytest.raises(UserError, match="--resume"):
        pretrain(tiny, tmp_path / "run", quiet=True)
    assert sorted(os.listdir(run.path)) == before


def test_a_resume_with_other_threads_says_so(
    tmp_path: Path, tiny: PretrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    run = pretrain(tiny, tmp_path / "run", quiet=True)
    (run.path / "DONE").unlink()
    resume(run.path, quiet=True)
    assert "threads" not in caplog.text
    (run.path / "DONE").unlink()
    environment = read_json(run.path / "environment.json") | {"threads": 7}
    write_json(run.path / "environment.json", environment)
    resume(run.path, quiet=True)
    assert "begun with 7 threads of torch and goes on with 1" in caplog.text
    assert "--threads 7 keeps them" in caplog.text
