"""`headwise study`: a grid of settings and seeds, run cell by cell, and what it says of claims; and
a search for good settings."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from headwise.cli.flags import Role
from headwise.cli.terminal import say
from headwise.cli.words import CommandLine, Given
from headwise.errors import UserError
from headwise.own_code import names_code, own

if TYPE_CHECKING:
    from headwise.study.design import Study as Design

Budget = Literal["trial", "small", "full"]
_FOR = {
    "list": "",
    "show": "budget data seeds seed threads",
    "run": "out budget data seeds seed workers storage cells_in threads quiet",
    "tune": "out data recipe config settings search trials criterion seed workers cells_in "
    "threads quiet",
    "work": "cells threads quiet",
    "report": "",
    "claims": "out",
}
"""The flags that each of them takes."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Run a grid of settings and seeds, and say what it shows of the claims that it asks about.

    list: the studies that there are. show NAME: its arms, its claims, and how long it takes. run
    NAME: run what is missing of it, and write its page. tune: search good settings for a run, also
    without labels. work DIR: help to run a study or a search that another process began. report
    DIR: write its page from what has run so far. claims DIR DIR …: write one
    page of all claims with the answers of these studies."""

    do: Annotated[
        Literal["list", "show", "run", "tune", "work", "report", "claims"], Role.POSITIONAL
    ]
    """What to do."""
    names: Annotated[tuple[str, ...], Role.POSITIONAL] = ()
    """For show and run: a study, by its name or as FILE.py:function, a function of yours that
    returns one. For work, report and claims: directories of studies."""
    out: Path | None = None
    """run, tune: the directory of the study or the search, which is created or gone on with.
    claims: the directory for claims.html and claims.md."""
    budget: Budget = "small"
    """trial: a few small runs, to see that it works; small: for a laptop; full: the paper's
    setting for small images, on a GPU."""
    data: tuple[str, ...] = ()
    """The images, as in headwise pretrain; several where a study compares data sets. None: those of
    the budget."""
    seeds: int | None = None
    """Runs of each arm. None: five, or what the budget says. With fewer than five there are no
    verdicts. A study can be given more later."""
    seed: int = 0
    """The first seed."""
    workers: int = 1
    """Processes that run cells at the same time, on this machine."""
    storage: str = ""
    """The address of a database for the queue (postgresql+psycopg://USER@HOST/NAME), where several
    machines work on one study whose directory they share. Empty: SQLite in the directory."""
    recipe: str = "small"
    """tune: the named settings to start from (docs/commands.md)."""
    config: Path | None = None
    """tune: a run's config.json to start from, in place of a recipe."""
    settings: tuple[str, ...] = ()
    """tune: settings that all trials have, in place of those to start from, such as epochs=20
    data.limit=5000. Their names are those of config.json."""
    search: tuple[str, ...] = ()
    """tune: the settings that are searched, such as temperature=0.05..1:log head.output_size=64,128
    (SETTING=LOW..HIGH, on a logarithmic scale with :log, or SETTING=VALUE,VALUE). None:
    temperature, learning rate, weight decay, the size of z and the strength of colour distortion.
    """
    trials: int = 20
    """tune: how many settings are tried. A search can be given more later."""
    criterion: Literal["rank", "twins", "knn"] = "rank"
    """tune: what is to be large. rank: the effective rank of h (RankMe), without labels; twins: how
    often two views of an image find each other by h, without labels; knn: k-NN accuracy of h on
    validation images, with labels."""
    cells_in: Path | None = None
    """The directory of the runs, which all studies that name it share. None: `cells` beside
    --out."""
    cells: tuple[str, ...] = ()
    """work: only these cells, also where they have failed. None: all that are left."""
    threads: int | None = None
    """Threads of torch on the CPU; the last digits of results depend on it. None: OMP_NUM_THREADS,
    or else one for each usable core."""
    quiet: bool = False
    """Show no progress."""


def run(given: Given[Study]) -> None:
    do = given.need("do")
    _refuse_idle(given, do)
    command = given.command()
    match do:
        case "list":
            _list()
        case "show":
            _show(given, command)
        case "run":
            _run(given, command)
        case "tune":
            from headwise.cli.tuning import run_tune

            run_tune(given)
        case "work":
            _work(_one(command), command)
        case "report":
            _report(_one(command))
        case "claims":
            from headwise.study.ledger import write_ledger

            pages = write_ledger([Path(name) for name in command.names], given.need("out"))
            say(*(f"Claims: {page}" for page in pages))


def _refuse_idle(given: Given[Study], do: str) -> None:
    """Raise `UserError` for a flag that this does not take."""
    for flag in given.line.flags:
        if not flag.positional and flag.path in given.values and flag.path not in _FOR[do].split():
            raise UserError(f"study {do} does not take {flag.name}; leave it out")


def _one(command: Study) -> Path:
    """The one directory, or name, that was given."""
    if len(command.names) != 1:
        what = "NAME" if command.do in ("show", "run") else "DIR"
        raise UserError(
            f"study {command.do} needs one {what}; got {' '.join(command.names) or 'none'}; for "
            f"example: {LINE.example}"
        )
    return Path(command.names[0])


def _design(given: Given[Study], command: Study) -> "Design":
    """The study that was named, with the seeds that were asked for."""
    from headwise.study.presets import preset

    name = str(_one(command))
    if names_code(name):
        if idle := [flag for flag in ("budget", "data") if flag in given.values]:
            raise UserError(f"--{idle[0]} is for the studies of headwise; {name} has its own")
        design = _own_study(name)
    else:
        design = preset(name, command.budget, command.data)
    seed = command.seed if "seed" in given.values else design.base.seed
    seeds = design.seeds if command.seeds is None else command.seeds
    return replace(design, base=replace(design.base, seed=seed), seeds=seeds)


def _own_study(words: str) -> "Design":
    from headwise.study.design import Study as Design

    code = own(words).code
    assert code is not None, "it was read from a file"
    design = code()
    if not isinstance(design, Design):
        raise UserError(
            f"{words} must return a headwise.study.Study; it returned a {type(design).__name__}"
        )
    return design


def _list() -> None:
    from headwise.study.presets import PRESETS

    for name, asks in PRESETS.items():
        say(f"{name:<24} {asks}")


def _show(given: Given[Study], command: Study) -> None:
    from headwise.study.estimate import shown
    from headwise.study.presets import UNTRAINED

    design = _design(given, command)
    say(design.asks, design.takes) if command.names[0] == UNTRAINED else say(shown(design))


def _run(given: Given[Study], command: Study) -> None:
    from headwise.study.presets import UNTRAINED
    from headwise.study.run import run_study

    out, design = given.need("out"), _design(given, command)
    if command.names[0] == UNTRAINED:
        _run_histograms(given, design, out)
        return
    run_study(
        design,
        out,
        budget=command.budget,
        workers=command.workers,
        threads=command.threads,
        storage=command.storage,
        cells=command.cells_in,
        command=_typed(given),
        quiet=command.quiet,
    )
    _say_page(out)
    _say_failed(out)


def _typed(given: Given[Study]) -> str:
    return shlex.join(["headwise", "study", *given.words])


def _run_histograms(given: Given[Study], design: "Design", out: Path) -> None:
    from headwise.study.presets.histograms import run_histograms

    for idle in ("seeds", "workers", "storage", "cells_in"):
        if idle in given.values:
            flag = "--" + idle.replace("_", "-")
            raise UserError(f"{design.name} trains nothing, so {flag} has no effect; leave it out")
    run_histograms(design, out, _typed(given))
    _say_page(out)


def _work(folder: Path, command: Study) -> None:
    from headwise.study.search import SEARCH_FILE
    from headwise.study.tune import work_trials
    from headwise.study.work import work

    if not (folder / SEARCH_FILE).is_file():
        work(folder, only=command.cells, quiet=command.quiet)
        _say_failed(folder)
        return
    if command.cells:
        raise UserError("--cells names runs of a study; a search has trials; leave it out")
    work_trials(folder, quiet=command.quiet)


def _report(folder: Path) -> None:
    from headwise.report.reading.study import FINDINGS_FILE
    from headwise.study.collect import collect
    from headwise.study.place import STUDY_FILE
    from headwise.study.search import SEARCH_FILE

    if (folder / SEARCH_FILE).is_file():
        from headwise.cli.tuning import say_tuned

        say_tuned(folder)
        return
    if (folder / STUDY_FILE).exists() or not (folder / FINDINGS_FILE).exists():
        collect(folder)
    _say_page(folder)


def _say_page(folder: Path) -> None:
    from headwise.report import study_text, write_study_report

    page = write_study_report(folder)
    say(study_text(folder), f"Report: {page}")


def _say_failed(folder: Path) -> None:
    """Raise `UserError` where cells have failed."""
    from headwise.study.place import state

    failed = state(folder).failed
    if failed:
        name, said = next(iter(failed.items()))
        raise UserError(
            f"{len(failed)} of the runs of {folder} failed, the first: {said}; try again with: "
            f"headwise study work {folder} --cells {name}"
        )


LINE = CommandLine(
    kind=Study,
    example="headwise study run heads --budget small --out runs/heads-study",
    usual="out budget data seeds workers storage cells quiet",
    run=run,
    light="list",
)
