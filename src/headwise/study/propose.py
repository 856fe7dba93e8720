"""What Optuna decides of a search: the settings of the next trial (TPE), and which trials to stop
early (the median rule).

Both are functions of the search, the number of the trial and the trials that have ended, which lie
as files in the search's directory: a study of Optuna is made from them for each decision, in
memory, so that nothing is lost with a process.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headwise import rng
from headwise.config import check_fields, from_dict, to_dict
from headwise.files import read_object, write_json
from headwise.study.search import Search, Searched

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_RANDOM_TRIALS = 5
"""Before TPE has enough to learn from, and before any trial is stopped."""
Outcome = Literal["open", "finished", "pruned", "failed"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial of a search: trials/0003.json."""

    number: int
    settings: dict[str, str]
    """The value of each setting that is searched, as typed."""
    run: str = ""
    """The name of its run."""
    outcome: Outcome = "open"
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    """What was measured after so many epochs: `{"4": {"rank": 31.2, "twins": 0.41}}`."""
    said: str = ""
    """Why it failed."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def last(self) -> dict[str, float]:
        """What was measured last."""
        return self.values[self.epochs] if self.values else {}

    @property
    def epochs(self) -> str:
        """How long it has trained."""
        return max(self.values, key=int, default="0")


def trial_path(folder: Path, number: int) -> Path:
    return folder / "trials" / f"{number:04d}.json"


def write_trial(folder: Path, trial: Trial) -> None:
    write_json(trial_path(folder, trial.number), to_dict(trial))


def read_trials(folder: Path) -> list[Trial]:
    """Those of a search that have begun, by number."""
    paths = sorted((folder / "trials").glob("[0-9]*.json"))
    return [from_dict(Trial, read_object(path), str(path)) for path in paths]


def proposed(search: Search, number: int, known: Sequence[Trial]) -> dict[str, str]:
    """The settings of trial `number`, by TPE from the trials that have ended. The first trial has
    the settings to begin with."""
    study = _study(search, number, known)
    if number == 0:
        study.enqueue_trial(
            {
                one.path: _value(one, search.first[one.path])
                for one in search.settings
                if one.path in search.first
            }
        )
    drawn = study.ask(_distributions(search)).params
    return {one.path: one.text(drawn[one.path]) for one in search.settings}


def is_pruned(search: Search, trial: Trial, known: Sequence[Trial]) -> bool:
    """Whether the trial is to be stopped: its criterion is below the median of what the finished
    trials among `known` had after as many epochs."""
    study = _study(search, trial.number, known)
    asked = study.ask()
    for epochs, values in trial.values.items():
        asked.report(values[search.criterion], int(epochs))
    return bool(asked.should_prune())


def _study(search: Search, number: int, known: Sequence[Trial]) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = rng.seed_at(search.base.seed, "search", number) % 2**32
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=_RANDOM_TRIALS),
        pruner=optuna.pruners.MedianPruner(
            n_startup_trials=_RANDOM_TRIALS, n_warmup_steps=search.base.epochs // 3
        ),
    )
    study.add_trials([_as_optunas(search, one) for one in known if one.outcome != "open"])
    return study


def _as_optunas(search: Search, trial: Trial) -> Any:
    """A trial as Optuna knows it. One that failed, as where the loss diverged, counts as stopped
    before anything was measured: worse than all others."""
    import optuna

    states = optuna.trial.TrialState
    done = trial.outcome == "finished"
    values = {} if trial.outcome == "failed" else trial.values
    return optuna.trial.create_trial(
        state=states.COMPLETE if done else states.PRUNED,
        params={one.path: _value(one, trial.settings[one.path]) for one in search.settings},
        distributions=_distributions(search),
        value=trial.last[search.criterion] if done else None,
        intermediate_values={int(e): found[search.criterion] for e, found in values.items()},
    )


def _distributions(search: Search) -> "dict[str, BaseDistribution]":
    return {one.path: _distribution(one) for one in search.settings}


def _distribution(one: Searched) -> "BaseDistribution":
    import optuna

    if one.low is None or one.high is None:
        return optuna.distributions.CategoricalDistribution(one.choices)
    if one.whole:
        return optuna.distributions.IntDistribution(int(one.low), int(one.high), log=one.log)
    return optuna.distributions.FloatDistribution(one.low, one.high, log=one.log)


def _value(one: Searched, text: str) -> Any:
    if one.choices:
        return text
    return int(text) if one.whole else float(text)
