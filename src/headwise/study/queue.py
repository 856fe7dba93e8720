"""The order in which the workers of a study take its cells: an Optuna study whose trials are the
cells. It lies in SQLite in the study's directory, or in a database that several machines reach.

The queue only says who is to begin what. Whether a cell is taken is decided by the lock in its
directory, and whether it is done by the directory itself, so a queue that is lost or behind costs
nothing but time.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from headwise.errors import UserError
from headwise.study.place import Begun

_WAIT_SECONDS = 60
"""For the database, while another process writes."""


class Taken(NamedTuple):
    """A cell that the queue handed out."""

    name: str
    number: int


class Queue:
    """The queue of one study. Raises `UserError` for a storage that does not answer."""

    def __init__(self, folder: Path, begun: Begun) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._states = optuna.trial.TrialState
        self._study = optuna.create_study(
            storage=_storage(folder, begun.storage),
            study_name=begun.identity,
            sampler=optuna.samplers.RandomSampler(seed=0),
            load_if_exists=True,
        )

    def fill(self, left: Iterable[str]) -> None:
        """Have these cells wait, where they do not yet. What waits and has ended is passed over."""
        trials = self._study.get_trials(deepcopy=False, states=(self._states.WAITING,))
        waiting = {trial.user_attrs.get("cell") for trial in trials}
        for name in left:
            if name not in waiting:
                self._study.enqueue_trial({}, user_attrs={"cell": name})

    def take(self) -> Taken | None:
        """The next cell that waits; None where there is none."""
        trial = self._study.ask()
        name = trial.user_attrs.get("cell")
        if name is None:  # none waited, so Optuna made a new trial
            self._study.tell(trial, state=self._states.FAIL)
            return None
        return Taken(name, trial.number)

    def ended(self, taken: Taken, *, done: bool) -> None:
        """Say what became of a cell."""
        self._study.tell(
            taken.number,
            1.0 if done else None,
            state=self._states.COMPLETE if done else self._states.FAIL,
            skip_if_finished=True,
        )


def _storage(folder: Path, url: str) -> Any:
    import optuna
    from sqlalchemy import event
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool  # no connection is left open

    sqlite = not url
    url = url or f"sqlite:///{folder / 'queue.db'}"
    wait = {"timeout": _WAIT_SECONDS} if sqlite else {"connect_timeout": 10}
    try:
        storage = optuna.storages.RDBStorage(
            url, engine_kwargs={"connect_args": wait, "poolclass": NullPool}
        )
    except (SQLAlchemyError, ImportError, TypeError, ValueError) as error:
        why = str(error).strip().splitlines()[0]
        raise UserError(
            f"--storage must be the address of a database that answers, such as "
            f"postgresql+psycopg://USER@HOST/NAME; got {_without_password(url)}: {why}"
        ) from None
    if sqlite:
        # Otherwise two workers read the same waiting cell before either writes that it took it.
        event.listen(storage.engine, "connect", _no_implicit_begin)
        event.listen(storage.engine, "begin", _begin_immediately)
    return storage


def _without_password(url: str) -> str:
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:…@", url)


def _no_implicit_begin(connection: Any, record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous = OFF")  # the queue can be lost


def _begin_immediately(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
