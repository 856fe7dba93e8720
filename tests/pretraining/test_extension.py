"""More epochs for a finished run: where they begin, their schedule; the other run is untouched."""

import dataclasses
import shutil

import pytest
import torch
from safetensors.torch import load_file

from headwise.cli.main import main
from headwise.errors import UserError
from headwise.files import read_json
from headwise.model import optim
from headwise.model.config import PretrainConfig
from headwise.model.config_file import read_config
from headwise.model.trained import load_config
from headwise.pretraining import loop
from headwise.pretraining.loop import pretrain, resume
from headwise.runs.directory import Run


def contents(run: Run) -> dict[str, bytes]:
    return {
        str(p.relative_to(run.path)): p.read_bytes() for p in run.path.rglob("*") if p.is_file()
    }


@pytest.fixture
def first(tmp_path, tiny: PretrainConfig) -> Run:
    return pretrain(dataclasses.replace(tiny, epochs=2), tmp_path / "first", quiet=True)


@pytest.fixture
def longer(first: Run) -> PretrainConfig:
    """Its settings, as the command line reads them, for two epochs more."""
    config = read_config(PretrainConfig, first.path / "config.json")
    own = dataclasses.replace(config.optim, warmup_epochs=None)
    return dataclasses.replace(config, epochs=4, optim=own)


def test_a_run_goes_on_where_the_other_ended(first, longer, tmp_path):
    before = contents(first)
    run = pretrain(longer, tmp_path / "second", extends=first.path, quiet=True)
    assert contents(first) == before
    assert [record["step"] for record in run.metrics()] == [2, 3, 4, 6, 8, 9, 10, 12]
    assert run.metrics()[:4] == first.metrics()
    assert read_json(run.path / "extends.json") == {
        "run": str(first.path),
        "id": first.id,
        "step": 6,
    }
    config = load_config(run)
    assert (config.epochs, config.optim.begin_epoch, config.optim.warmup_epochs) == (4, 2, 0.2)
    assert read_config(PretrainConfig, run.path / "config.json").epochs == 4  # a start again
    peak = optim.peak_learning_rate(config.optim, config.batch_size)
    rates = [record["learning_rate"] for record in run.metrics()]
    assert rates[4] == optim.learning_rate(1, peak=peak, warmup_steps=1, total_steps=6) == peak
    assert run.metrics()[-1]["epoch"] == 4


def test_the_first_step_has_the_weights_and_the_optimizer_of_the_other(
    first, longer, tmp_path, monkeypatch
):
    seen = []
    step = loop.train_step

    def watched(config, state, views, rate, target):
        if not seen:
            kept = {key: value.clone() for key, value in state.model.state_dict().items()}
            seen.extend([state.step, rate, kept, len(state.optimizer.state)])
        return step(config, state, views, rate, target)

    monkeypatch.setattr(loop, "train_step", watched)
    pretrain(longer, tmp_path / "second", extends=first.path, quiet=True)
    weights = load_file(first.path / "checkpoints" / "step-00000006" / "model.safetensors")
    assert seen[:2] == [6, 0.0]
    assert all(torch.equal(seen[2][key], value) for key, value in weights.items())
    assert seen[3] > 0


def test_it_resumes_to_the_same_bits_also_from_its_first_checkpoint(first, longer, tmp_path):
    whole = pretrain(longer, tmp_path / "whole", extends=first.path, quiet=True)
    for kept in ("step-00000009", None):
        run = Run(tmp_path / "run")
        shutil.rmtree(run.path, ignore_errors=True)
        if kept is None:  # stopped before its first step
            extended = dataclasses.replace(longer, keep_checkpoints=9)
            pretrain(extended, run.path, extends=first.path, quiet=True)
            removed = ("step-00000009", "step-00000012")
        else:
            shutil.copytree(whole.path, run.path)
            removed = ("step-00000012",)
        for name in removed:
            shutil.rmtree(run.path / "checkpoints" / name)
        (run.path / "DONE").unlink()
        (run.path / "encoder.safetensors").unlink()
        resume(run.path, quiet=True)
        for name in ("encoder.safetensors", "checkpoints/step-00000012/model.safetensors"):
            assert (run.path / name).read_bytes() == (whole.path / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 2}, "--epochs must be more than the 2 that"),
        ({"batch_size": 10}, "must have its batch_size"),
        ({"seed": 3}, "must have its seed"),
        ({"epochs": 3, "optim": {"name": "sgd"}}, "must have its optim.name"),
        ({"optim": {"warmup_epochs": 2.0}}, "warmup_epochs must be less than the run's 2 epochs"),
        ({"data": {"limit": 40}}, "must have its images"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    first, longer, tmp_path, changes, said
):
    for name in ("optim", "data"):
        if name in changes:
            inner = dataclasses.replace(vars(longer)[name], **changes[name])
            changes = {**changes, name: inner}
    with pytest.raises(UserError, match=said) as error:
        pretrain(
            dataclasses.replace(longer, **changes), tmp_path / "new", extends=first.path, quiet=True
        )
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()


def test_the_command(first, tmp_path, capsys):
    words = ["pretrain", "--extend", str(first.path), "--epochs", "3", "--out"]
    with pytest.raises(SystemExit) as stop:
        main([*words, str(tmp_path / "new"), "--quiet"])
    assert stop.value.code == 0, capsys.readouterr().err
    assert load_config(Run(tmp_path / "new")).optim.warmup_epochs == 0.1
    with pytest.raises(SystemExit) as stop:
        main([*words, str(tmp_path / "other"), "--recipe", "small"])
    assert stop.value.code == 2
    assert "--extend starts from the settings of its run" in capsys.readouterr().err
