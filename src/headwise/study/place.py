"""Where a study's runs are, and how far each is.

Runs of all studies that lie side by side share one directory of cells, in which a run is named
after a hash of its settings and images: two studies that ask for the same run have one. A study's
own directory says which runs are its, and which of them it has measured.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headwise.comparison.arms import own_settings
from headwise.config import from_dict, to_dict
from headwise.data import DataConfig, Splits
from headwise.data.split import labelled_splits
from headwise.errors import UserError
from headwise.files import read_object, write_json, write_text
from headwise.model.config import PretrainConfig, resolve
from headwise.model.trained import identify
from headwise.report.reading.study import Levels
from headwise.study.design import Cell, Study, arm_name, cells

STUDY_FILE, PLAN_FILE = "study.json", "plan.json"
_POLL_SECONDS = 2.0
Opener = Callable[[DataConfig], Splits]


@dataclass(frozen=True, kw_only=True)
class Begun:
    """study.json: a study as it began."""

    version: int = 1
    study: Study
    budget: str = ""
    identity: str
    """Its name in the queue's storage, which may hold many studies."""
    storage: str = ""
    """The address of the queue's storage; empty: SQLite in the study's directory."""
    command: str = ""
    """What began it, and goes on with it."""
    cells: str
    """The directory of runs, as seen from the study's."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A cell, and where its run is."""

    name: str
    """Of its directory."""
    levels: Levels
    seed: int
    section: str
    """Which section of its results.json the study reads."""

    @property
    def words(self) -> str:
        return f"{arm_name(self.levels)}, seed {self.seed}"


def read_begun(folder: Path) -> Begun:
    """Raises `UserError` where a directory is no study."""
    path = folder / STUDY_FILE
    if not path.is_file():
        raise UserError(
            f"a study's directory must have {STUDY_FILE}; {folder} has none; begin one with: "
            f"headwise study run NAME --out {folder}"
        )
    return from_dict(Begun, read_object(path), str(path))


def make_plan(study: Study, opened: Opener) -> list[Placed]:
    """Name the run of every cell. Raises `UserError` for cells and images that cannot be."""
    plan = []
    for cell in cells(study):
        refuse_own_code(study, cell)
        images = opened(cell.config.data)
        section = identify(labelled_splits(images), cell.config.data).key
        name = run_name(cell.config, images)
        plan.append(Placed(name=name, levels=cell.levels, seed=cell.config.seed, section=section))
    return plan


def refuse_own_code(study: Study, cell: Cell) -> None:
    """Raise `UserError` for code of the user's, which study.json cannot hand to other workers."""
    config = cell.config
    own = (config.head.own, config.encoder.own, config.augment.own, config.own_objective)
    named = next((code.words for code in own if code is not None), None)
    if named:
        raise UserError(
            f"the settings of a study must not have own code; {study.name!r} has {named} in "
            f"{cell.arm!r}; compare it with: headwise compare --arms"
        )


def write_plan(folder: Path, plan: Sequence[Placed]) -> None:
    write_json(folder / PLAN_FILE, {"cells": [to_dict(one) for one in plan]})


def has_plan(folder: Path) -> bool:
    """A study that was killed as it began has none."""
    return (folder / PLAN_FILE).is_file()


def read_plan(folder: Path) -> list[Placed]:
    """The cells of a study that has begun. Raises `UserError` where it is none."""
    path = folder / PLAN_FILE
    if not has_plan(folder):
        raise UserError(
            f"the study in {folder} must have a plan, {PLAN_FILE}; it was stopped before; run it "
            "again with the words that began it"
        )
    return [from_dict(Placed, one, str(path)) for one in read_object(path)["cells"]]


def run_name(config: PretrainConfig, images: Splits) -> str:
    """Equal for equal results: for equal settings, seed and images, on whatever machine."""
    settings = own_settings(resolve(config, images.train))
    prints = [images.train.fingerprint, "" if images.test is None else images.test.fingerprint]
    return f"{config.head.name}-{digest(settings, prints)}-seed{config.seed}"


def digest(*known: object) -> str:
    """Twelve letters that are equal for equal JSON values."""
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]


def run_path(folder: Path, begun: Begun, placed: Placed) -> Path:
    return Path(os.path.normpath(folder / begun.cells / placed.name))


@dataclass(frozen=True, kw_only=True)
class State:
    """How far a study is."""

    done: frozenset[str]
    """Names of cells that were trained and measured."""
    failed: dict[str, str]
    """What those that failed said."""

    @property
    def ended(self) -> set[str]:
        """Names of cells that have ended, good or bad."""
        return {*self.done, *self.failed}

    def left(self, plan: Sequence[Placed]) -> list[Placed]:
        """Cells that have not ended; a run that two arms share stands once."""
        by_name = {one.name: one for one in plan if one.name not in self.ended}
        return list(by_name.values())


def state(folder: Path) -> State:
    """From the marks that workers leave."""
    failed = {path.name: path.read_text(encoding="utf-8") for path in _files(folder / "failed")}
    done = {path.name for path in _files(folder / "done")}
    return State(done=frozenset(done), failed=failed)


def mark_done(folder: Path, name: str) -> None:
    write_text(folder / "done" / name, "")
    (folder / "failed" / name).unlink(missing_ok=True)


def mark_failed(folder: Path, name: str, message: str) -> None:
    write_text(folder / "failed" / name, message)


def unmark(folder: Path, name: str) -> None:
    """It is to be run again."""
    for kind in ("done", "failed"):
        (folder / kind / name).unlink(missing_ok=True)


def pause() -> None:
    """Wait before looking again at what other processes have done."""
    time.sleep(_POLL_SECONDS)


def _files(folder: Path) -> list[Path]:
    """Without temporary ones."""
    return list(folder.glob("[!.]*")) if folder.is_dir() else []
