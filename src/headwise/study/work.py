"""A worker: takes the cells of a study one after the other, until none is left."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

from headwise.data import DataConfig, Splits, given_splits, open_images
from headwise.errors import UserError, nearest
from headwise.model.config import PretrainConfig
from headwise.pretraining.finished import finished
from headwise.runs.lock import Busy, writing
from headwise.runtime.interrupts import Interrupted
from headwise.runtime.progress import progress
from headwise.study.design import Study, cells
from headwise.study.measuring import measure_baselines, measure_cell
from headwise.study.place import (
    Begun,
    Opener,
    Placed,
    mark_done,
    mark_failed,
    pause,
    read_begun,
    read_plan,
    run_path,
    state,
    unmark,
)
from headwise.study.queue import Queue

log = logging.getLogger("headwise")


def opener() -> Opener:
    """Opens images, and keeps the last few sets for the next cell."""
    return functools.lru_cache(maxsize=3)(_open)


def _open(data: DataConfig) -> Splits:
    return given_splits(open_images(data))


def work(folder: Path, *, only: Sequence[str] = (), quiet: bool = False) -> None:
    """Run the cells of a study that nobody has run or is running; with `only`, just these, also
    where they have failed. Returns when every cell has ended, wherever it ran.

    A cell that fails is marked with its message, and the others go on. Raises `Interrupted` after
    SIGTERM or Ctrl-C, when the state of the run is saved.
    """
    begun, plan = read_begun(folder), read_plan(folder)
    asked = _asked(plan, only)
    for one in asked if only else ():
        unmark(folder, one.name)
    configs = {one.name: cell.config for one, cell in zip(plan, cells(begun.study), strict=True)}
    by_name = {one.name: one for one in asked}
    queue, opened = None if only else Queue(folder, begun), opener()
    with progress(begun.study.name, len(by_name), quiet=quiet) as show:
        while left := [one for one in state(folder).left(plan) if one.name in by_name]:
            show(len(by_name) - len(left), left[0].words)
            taken = queue.take() if queue else None
            queue = queue if taken else None  # what is left then is with others, or lost
            chosen = [one for one in left if not taken or one.name == taken.name]
            ended = any(_end(folder, begun, one, configs[one.name], opened) for one in chosen)
            if queue and taken:
                queue.ended(taken, done=taken.name in state(folder).done)
            if not ended and not taken:
                pause()  # others are at them
        show(len(by_name), "")


def _asked(plan: Sequence[Placed], only: Sequence[str]) -> list[Placed]:
    names = [one.name for one in plan]
    for name in only:
        if name not in names:
            raise UserError(
                f"--cells must be cells of the study; got {name}; {nearest(name, names)}"
            )
    return [one for one in plan if not only or one.name in only]


def _end(folder: Path, begun: Begun, one: Placed, config: PretrainConfig, opened: Opener) -> bool:
    """Run a cell to its end, good or bad; False where it has ended or another process is at it."""
    path = run_path(folder, begun, one)
    try:
        with writing(path):
            if one.name in state(folder).ended:
                return False  # while the lock was waited for
            run_cell(begun.study, config, path, opened(config.data))
            mark_done(folder, one.name)
    except Busy:
        return False
    except Interrupted:
        raise
    except Exception as error:
        log.warning("%s failed: %s", one.words, error)
        mark_failed(folder, one.name, f"{one.words}: {' '.join(str(error).split())}")
    return True


def run_cell(study: Study, config: PretrainConfig, path: Path, images: Splits) -> None:
    """Train and measure what is missing of a cell."""
    run = finished(config, path, images, quiet=True)
    measure_cell(study, run, images)
    if study.baselines:
        measure_baselines(path.parent, study, run, images)
