"""Files of a run that a disk, a copy or a person has damaged: one clear line, or a right result."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from damage import COMMANDS, FILES, MEASURED, go_on, measure, mutations, outcome, represent

from headwise import evaluate, pretrain, resume
from headwise.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def runs(folder: Path, tiny: Any) -> tuple[Path, Path]:
    """A run, and another one of the same shapes with another seed."""
    for seed in (0, 1):
        if not (folder / f"run{seed}").exists():
            config = dataclasses.replace(tiny, epochs=2, seed=seed)
            run = pretrain(config, folder / f"run{seed}", quiet=True)
            evaluate(run.path, config=MEASURED)
    return folder / "run0", folder / "run1"


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file(runs: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    """Weights that were damaged are always noticed, and a resume makes them again."""
    whole, other = runs
    expected = {command: call(whole) for command, call in COMMANDS.items()}
    content = (whole / name).read_bytes()
    for kind, damaged in mutations(content, (other / name).read_bytes(), len(name)).items():
        copy = tmp_path / "run"
        for command, call in COMMANDS.items():
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(whole, copy)
            if damaged is None:
                (copy / name).unlink()
            else:
                (copy / name).write_bytes(damaged)
            found = outcome(call, copy)
            if isinstance(found, UserError):
                assert "\n" not in str(found), (kind, command)
            elif isinstance(found, BaseException):
                raise AssertionError(f"{name}, {kind}, {command}") from found
            elif name != "config.json":  # other settings that are valid give other results
                assert found == expected[command], (kind, command)


@pytest.mark.parametrize("name", ["encoder.safetensors", "model.safetensors"])
@pytest.mark.parametrize("kind", ["flip 0", "swap", "gone"])
def test_a_resume_makes_weights_again(
    runs: tuple[Path, Path], tmp_path: Path, name: str, kind: str
) -> None:
    whole, other = runs
    copy = tmp_path / "run"
    shutil.copytree(whole, copy)
    (found,) = [path for path in sorted(copy.rglob(name)) if "step-00000003" not in str(path)]
    place = found.relative_to(copy)
    damaged = mutations((whole / place).read_bytes(), (other / place).read_bytes(), 0)[kind]
    found.unlink() if damaged is None else found.write_bytes(damaged)
    command = measure if name == "model.safetensors" else represent
    with pytest.raises(UserError, match=f"headwise pretrain --resume {copy}"):
        command(copy)
    assert go_on(copy) == go_on(whole)
    assert command(copy) == command(whole)
    assert found.read_bytes() == (whole / place).read_bytes()


def test_a_checkpoint_of_another_run_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    whole, other = runs
    copy = tmp_path / "run"
    shutil.copytree(whole, copy)
    shutil.rmtree(copy / "checkpoints")
    shutil.copytree(other / "checkpoints", copy / "checkpoints")
    (copy / "DONE").unlink()
    with pytest.raises(UserError, match="must be a checkpoint of this run; it is of another one"):
        resume(copy, quiet=True)


def test_stray_names_and_leftovers(runs: tuple[Path, Path], tmp_path: Path) -> None:
    whole, copy = runs[0], tmp_path / "run"
    shutil.copytree(whole, copy)
    for name in ("step-zzz", "step-9.bak", ".step-00000009.0123abcd.tmp", "step-00000009"):
        if name == "step-00000009":
            (copy / "checkpoints" / name).write_text("a file")
        else:
            (copy / "checkpoints" / name).mkdir()
    for name in ("DONE", "environment.json", "views.png", "encoder.safetensors"):
        (copy / name).unlink()
    assert go_on(copy) == go_on(whole)
    assert not list(copy.rglob("*.tmp"))
    assert (copy / "checkpoints" / "step-9.bak").is_dir()
    assert (copy / "views.png").read_bytes() == (whole / "views.png").read_bytes()
    environment = (copy / "environment.json").read_text()
    assert environment == (whole / "environment.json").read_text()
