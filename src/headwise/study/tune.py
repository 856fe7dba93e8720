"""`headwise study tune`: a search for settings, trial by trial, by one worker or several.

Every trial is an ordinary run among the cells that studies share, trained from rung to rung: after
each it is measured, and stopped where it falls behind.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from headwise.config import from_dict, to_dict
from headwise.data import Splits
from headwise.errors import UserError
from headwise.files import read_object, write_json
from headwise.model.config import PretrainConfig, resolve
from headwise.pretraining.finished import finished
from headwise.runs.directory import refuse_existing
from headwise.runs.lock import Busy, writing
from headwise.runtime.progress import progress
from headwise.study.criteria import has_labels, measure_run
from headwise.study.place import pause, run_name
from headwise.study.propose import Trial, is_pruned, proposed, read_trials, write_trial
from headwise.study.run import differences, share
from headwise.study.search import (
    SEARCH_FILE,
    Criterion,
    Search,
    Searched,
    check_ends,
    config_with,
    first_of,
    read_settings,
    usual_settings,
)
from headwise.study.tuned import write_tuned
from headwise.study.work import opener

_VALIDATION = 0.2
"""Of labelled training images: settings are not chosen on test images."""


def tune(
    base: PretrainConfig,
    out: Path,
    *,
    search: Sequence[str] = (),
    trials: int = 20,
    criterion: Criterion = "rank",
    words: Sequence[str] = (),
    workers: int = 1,
    threads: int | None = None,
    cells: Path | None = None,
    quiet: bool = False,
) -> None:
    """Begin a search in `out`, or go on with it, run what is missing, and write tuning.json.

    `search`: settings and their values, as for --search; none: the usual ones. `words`: the flags
    that give `base`, for the command that is printed. Raises `UserError` for settings that cannot
    be searched and for another search in `out`, `Interrupted` after SIGTERM or Ctrl-C.
    """
    for flag, count in {"--workers": workers, "--trials": trials}.items():
        if count < 1:
            raise UserError(f"{flag} must be at least 1; got {count}")
    asked, images = _planned(base, read_settings(search), trials, criterion)
    asked = replace(
        asked, words=tuple(words), cells=os.path.relpath(cells or out.parent / "cells", out)
    )
    _begin(asked, out)
    try:
        if workers == 1:
            work_trials(out, images=images, quiet=quiet)
        elif _left(out):
            share(out, asked.trials, lambda: _left(out), workers, threads, quiet=quiet)
    finally:
        write_tuned(out)


def start(
    base: PretrainConfig, spec: str, settings: Sequence[str]
) -> tuple[PretrainConfig, list[str]]:
    """The settings to begin with on these images, with those that --settings names; and the flags
    of `headwise pretrain` that give the same."""
    pairs = [one.partition("=") for one in settings]
    for path, equals, text in pairs:
        if not (path and equals and text):
            raise UserError(
                f"--settings takes settings such as epochs=20; got {path + equals + text!r}"
            )
    texts = {path.replace("-", "_"): text for path, _, text in pairs}
    words = ["--data", spec]
    for path, text in texts.items():
        words += [f"--{path.replace('_', '-')}", *text.split()]
    base = replace(base, data=replace(base.data, spec=spec))
    try:
        return config_with(base, texts), words
    except UserError as error:
        raise UserError(f"--settings: {error}") from None


def _planned(
    base: PretrainConfig, settings: tuple[Searched, ...], trials: int, criterion: Criterion
) -> tuple[Search, Splits]:
    """The search and its images, checked before anything is written."""
    images, opened = opener()(base.data), opener()
    if images.train.labels is not None and not base.data.validation_fraction:
        data = replace(base.data, validation_fraction=_VALIDATION, test_on="validation")
        base = replace(base, data=data)
        images = opened(data)
    labelled = has_labels(images)
    if criterion == "knn" and not labelled:
        raise UserError(
            f"--criterion knn needs labels; {base.data.spec} has none; leave it out for a criterion"
            " without labels"
        )
    resolved = resolve(base, images.train)
    settings = settings or usual_settings(resolved)
    check_ends(base, settings)
    planned = Search(
        base=base,
        settings=settings,
        criterion=criterion,
        trials=trials,
        labelled=labelled,
        first=first_of(settings, resolved),
        cells="",
    )
    return planned, images


def read_search(folder: Path) -> Search:
    return from_dict(Search, read_object(folder / SEARCH_FILE), str(folder / SEARCH_FILE))


def _begin(asked: Search, out: Path) -> None:
    """Write search.json, or check that the search in `out` is this one; more trials than it began
    with are taken on."""
    if (out / SEARCH_FILE).is_file():
        begun = read_search(out)
        asked = replace(asked, trials=max(asked.trials, begun.trials))
        grown = replace(begun, trials=asked.trials, words=asked.words, cells=asked.cells)
        for path, before, now in differences(to_dict(grown), to_dict(asked)):
            raise UserError(
                f"{out} must be gone on with as it began; {path} was {before!r} and is {now!r}; "
                "give the words that began it, or begin another search in another --out"
            )
    else:
        refuse_existing(out, resumable=False)
    write_json(out / SEARCH_FILE, to_dict(asked))


def _left(folder: Path) -> int:
    """Trials that have not ended."""
    return read_search(folder).trials - sum(t.outcome != "open" for t in read_trials(folder))


def work_trials(folder: Path, *, images: Splits | None = None, quiet: bool = False) -> None:
    """Run trials until all have ended, wherever they ran. Trials that a process began and left are
    gone on with before others begin."""
    search = read_search(folder)
    images = opener()(search.base.data) if images is None else images
    with progress(folder.name, search.trials, quiet=quiet) as show:
        while left := _left(folder):
            show(search.trials - left, "")
            begun = [trial.number for trial in read_trials(folder) if trial.outcome == "open"]
            if any(_end(folder, search, number, images) for number in begun):
                continue
            if not _propose(folder, search, images):
                pause()  # others are at the last ones
        show(search.trials, "")


def _propose(folder: Path, search: Search, images: Splits) -> bool:
    """Write the next trial; False where there is none, or another process is writing it."""
    try:
        with writing(folder / "trials"):
            known = read_trials(folder)
            if len(known) >= search.trials:
                return False
            settings = proposed(search, len(known), known)
            trial = Trial(number=len(known), settings=settings)
            try:
                name = run_name(config_with(search.base, settings), images)
                trial = replace(trial, run=name)
            except UserError as error:  # two values that do not go together
                trial = replace(trial, outcome="failed", said=str(error))
            write_trial(folder, trial)
    except Busy:
        return False
    return True


def _end(folder: Path, search: Search, number: int, images: Splits) -> bool:
    """Train a trial to its end, or until it is stopped; False where another process is at it."""
    path = Path(os.path.normpath(folder / search.cells / _trial(folder, number).run))
    try:
        with writing(path):
            trial = _trial(folder, number)
            if trial.outcome != "open":
                return False  # while the lock was waited for
            _climb(folder, search, trial, path, images)
    except Busy:
        return False
    except UserError as error:
        said = " ".join(str(error).split())
        write_trial(folder, replace(_trial(folder, number), outcome="failed", said=said))
    return True


def _climb(folder: Path, search: Search, trial: Trial, path: Path, images: Splits) -> None:
    """From rung to rung: train, measure, and decide whether to go on."""
    config, rungs = config_with(search.base, trial.settings), search.rungs
    for epoch in rungs:
        last = epoch == rungs[-1]
        if f"{epoch}" in trial.values:
            continue
        run = finished(config, path, images, quiet=True, until=None if last else epoch)
        if run.metrics()[-1]["epoch"] > epoch:
            continue  # an equal run of another study is further
        labels = search.labelled and (last or search.criterion == "knn")
        found = measure_run(run, search.base, images, with_labels=labels)
        trial = replace(trial, values={**trial.values, f"{epoch}": found})
        known = [one for one in read_trials(folder) if one.number != trial.number]
        outcome = trial.outcome
        if last:
            outcome = "finished"
        elif is_pruned(search, trial, known):
            outcome = "pruned"
        trial = replace(trial, outcome=outcome)
        write_trial(folder, trial)
        if outcome == "pruned":
            return


def _trial(folder: Path, number: int) -> Trial:
    return next(trial for trial in read_trials(folder) if trial.number == number)
