"""A search: what it proposes, when it stops a trial, and that a kill changes nothing."""

import dataclasses
import json
import math
import multiprocessing
import random
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from headwise.errors import UserError
from headwise.model.config import PretrainConfig
from headwise.pretraining.loop import pretrain, resume
from headwise.study import tune as tuning
from headwise.study.criteria import found_share
from headwise.study.propose import Trial, is_pruned, proposed
from headwise.study.search import Search, read_settings
from headwise.study.tune import start, tune
from headwise.study.tuned import agreement, agreement_words

SPACE = ("temperature=0.05..1:log", "optim.lr=0.01..1:log", "head.output_size=4..16:log")


def search_of(base: PretrainConfig, *written: str, trials: int = 30) -> Search:
    return Search(
        base=base, settings=read_settings(written), trials=trials, first={}, cells="cells"
    )


def planted(settings: dict[str, str]) -> float:
    """Best at temperature 0.2 and learning rate 0.1."""
    away = (
        math.log(float(settings["temperature"]) / 0.2),
        math.log(float(settings["optim.lr"]) * 10),
    )
    return -(away[0] ** 2 + away[1] ** 2)


def trial(number: int, settings: dict[str, str], *values: float) -> Trial:
    return Trial(
        number=number,
        settings=settings,
        outcome="finished",
        values={f"{i + 1}": {"rank": value} for i, value in enumerate(values)},
    )


def best_of(search: Search, known: list[Trial], *, learns: bool) -> float:
    for number in range(search.trials):
        settings = proposed(search, number, known if learns else [])
        known.append(trial(number, settings, planted(settings)))
    return max(one.last["rank"] for one in known)


def test_the_planted_optimum_is_found_better_than_by_chance(tiny: PretrainConfig) -> None:
    """Over three seeds; without what it knows, it draws at random."""
    found, drawn = [], []
    for seed in range(3):
        search = search_of(dataclasses.replace(tiny, seed=seed), *SPACE[:2], trials=20)
        found.append(best_of(search, [], learns=True))
        drawn.append(best_of(search, [], learns=False))
    assert sum(found) > sum(drawn)
    assert sorted(found)[1] > -0.1  # within a third of an octave or so


def test_a_proposal_depends_on_the_trials_before_it_alone(tiny: PretrainConfig) -> None:
    search = search_of(tiny, *SPACE, "head.activation=relu,gelu")
    search = dataclasses.replace(search, first={"temperature": "0.5", "head.activation": "relu"})
    known: list[Trial] = []
    for number in range(8):
        settings = proposed(search, number, known)
        assert proposed(search, number, [*known]) == settings
        assert all(one.allows(settings[one.path]) for one in search.settings)
        known.append(trial(number, settings, planted(settings)))
    assert known[0].settings["temperature"] == "0.5"
    assert len({tuple(one.settings.values()) for one in known}) == 8


def test_a_trial_below_the_median_is_stopped(tiny: PretrainConfig) -> None:
    search = search_of(dataclasses.replace(tiny, epochs=3), SPACE[0])
    known = [trial(i, {"temperature": "0.5"}, 1.0, 2.0 + i) for i in range(5)]
    worse, better = (trial(5, {"temperature": "0.5"}, 1.0, value) for value in (3.0, 5.0))
    assert is_pruned(search, worse, known)
    assert not is_pruned(search, better, known)
    assert not is_pruned(search, worse, known[:4])  # too few to compare with


def test_agreement() -> None:
    """On planted values; with few trials it cannot tell."""
    values = [float(i) for i in range(12)]
    alike = agreement("rank", values, [0.1 * v for v in values])
    assert alike.rho == pytest.approx(1.0)
    assert alike.p_value == pytest.approx(1e-4)
    assert "much as k-NN does" in agreement_words(alike)
    against = agreement("rank", values, [-v for v in values])
    assert "do not choose by it" in agreement_words(against)
    noise = [float(x) for x in torch.randperm(12, generator=torch.Generator().manual_seed(1))]
    assert "cannot tell" in agreement_words(agreement("rank", values, noise))
    five = agreement("rank", values[:5], values[:5])
    assert five.p_value == pytest.approx(2 / 120, abs=0.01)  # all orders of five: exact
    assert "too few" in agreement_words(agreement("twins", values[:4], values[:4]))


def test_twins_are_found() -> None:
    h = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    assert found_share(h, 3 * h) == 1.0
    assert found_share(h, torch.roll(h, 1, 0)) == 0.0


def test_a_run_trained_from_rung_to_rung_is_the_undisturbed_one(
    tiny: PretrainConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(tiny, epochs=2, knn_every=0)
    whole = pretrain(config, tmp_path / "whole", quiet=True)
    parts = pretrain(config, tmp_path / "parts", until=1, quiet=True)
    assert not parts.done
    assert parts.metrics()[-1]["epoch"] == 1
    assert resume(parts, quiet=True).done
    name = "encoder.safetensors"
    assert (parts.path / name).read_bytes() == (whole.path / name).read_bytes()


def found(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "tuning.json").read_text())


def test_a_search_that_was_killed_ends_as_if_it_had_not_been(
    tiny: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL at random moments; then it is given another trial, by two workers."""
    monkeypatch.setattr(tuning, "_VALIDATION", 0.3)
    base = dataclasses.replace(tiny, epochs=2, knn_every=0)
    whole, killed = tmp_path / "whole" / "search", tmp_path / "killed" / "search"
    asked = {"search": SPACE, "quiet": True}
    tune(base, whole, trials=3, **asked)
    first, *_ = [one for one in found(whole)["trials"] if one["number"] == 0]
    assert first["settings"] == {"temperature": "0.5", "optim.lr": "0.075", "head.output_size": "8"}
    assert {*first["values"]["2"]} == {"rank", "twins", "knn"}
    moments = random.Random(0)
    for _ in range(3):
        worker = multiprocessing.get_context("fork").Process(
            target=tune, args=(base, killed), kwargs={"trials": 3, **asked}
        )
        with warnings.catch_warnings():  # Python warns of threads; the child uses none of ours
            warnings.simplefilter("ignore", DeprecationWarning)
            worker.start()
        time.sleep(moments.uniform(0.2, 1.0))
        worker.kill()
        worker.join()
    tune(base, killed, trials=3, **asked)
    assert found(killed) == found(whole)

    tune(base, killed, trials=4, **asked)
    assert len(found(killed)["trials"]) == 4
    with pytest.raises(UserError, match=r"must be gone on with as it began; base\.batch_size was"):
        tune(dataclasses.replace(base, batch_size=10), killed, **asked)
    with pytest.raises(UserError, match=r"gone on with as it began; settings\[0\]\.high was 1\.0"):
        tune(base, killed, search=("temperature=0.05..0.9:log", *SPACE[1:]), quiet=True)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("temperatur=0.1..1", "no setting 'temperatur'; did you mean 'temperature'"),
        ("temperature", "takes SETTING=LOW..HIGH"),
        ("temperature=1..0.1", "must have two numbers, the lower first"),
        ("temperature=0..1:log", "must have two positive numbers"),
        ("temperature=0.1..1:lin", "takes SETTING=LOW..HIGH"),
        ("temperature=0.1", "needs two values of temperature or more"),
        ("head.name=a..b", "head.name is not a number and has no range"),
        ("head.depth=1.5..3", "takes whole numbers"),
        ("epochs=1..3", "cannot vary epochs"),
        ("data.limit=10,20", "cannot vary data.limit"),
        ("head.name=mlp,mpl", "head.name=mpl: head.name must be known"),
        ("temperature=-1..1", "temperature=-1: --temperature must be positive"),
    ],
)
def test_wrong_searches(tiny: PretrainConfig, tmp_path: Path, written: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        tune(tiny, tmp_path / "search", search=(written,))
    assert not (tmp_path / "search").exists()


def test_wrong_beginnings(tiny: PretrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--trials must be at least 1; got 0"):
        tune(tiny, tmp_path / "search", trials=0)
    with pytest.raises(UserError, match="--workers must be at least 1; got 0"):
        tune(tiny, tmp_path / "search", workers=0)
    with pytest.raises(UserError, match="temperature twice"):
        read_settings(["temperature=0.1..1", "temperature=0.1,1"])
    with pytest.raises(UserError, match="--settings: no setting 'epoch'; did you mean 'epochs'"):
        start(tiny, "builtin:digits", ["epoch=3"])
    config, words = start(tiny, "builtin:digits", ["epochs=3", "augment.crop_scale=0.2 1"])
    assert (config.epochs, config.augment.crop_scale) == (3, (0.2, 1.0))
    assert words[2:] == ["--epochs", "3", "--augment.crop-scale", "0.2", "1"]
