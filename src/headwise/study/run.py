"""Running a study: begin it or go on with it, here alone or with several workers."""

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from headwise.config import to_dict
from headwise.errors import UserError
from headwise.files import write_json
from headwise.report.words import counted
from headwise.runs.directory import refuse_existing
from headwise.runtime import hardware
from headwise.runtime.interrupts import Interrupted, stop_requests
from headwise.runtime.progress import progress
from headwise.study.collect import collect
from headwise.study.design import Study
from headwise.study.place import (
    STUDY_FILE,
    Begun,
    has_plan,
    make_plan,
    pause,
    read_begun,
    read_plan,
    run_path,
    state,
    unmark,
    write_plan,
)
from headwise.study.queue import Queue
from headwise.study.work import opener, work


def run_study(
    study: Study,
    out: Path,
    *,
    budget: str = "",
    workers: int = 1,
    threads: int | None = None,
    storage: str = "",
    cells: Path | None = None,
    command: str = "",
    quiet: bool = False,
) -> None:
    """Begin the study in `out`, or go on with it, run what is missing, and write findings.json.

    `workers`: processes that share the usable cores, or have so many `threads` each. `cells`: the
    directory of runs, shared with other studies; None: `cells` beside `out`. `command`: what is
    typed to begin it, for the page.
    Raises `UserError` for settings that cannot work and for another study in `out`, `Interrupted`
    after SIGTERM or Ctrl-C.
    """
    if workers < 1:
        raise UserError(f"--workers must be at least 1; got {workers}")
    begun = _begun(
        study,
        out,
        Begun(
            study=study,
            budget=budget,
            identity=f"{study.name}-{uuid.uuid4().hex[:8]}",
            storage=storage,
            command=command,
            cells=os.path.relpath(cells or out.parent / "cells", out),
        ),
    )
    plan, done = read_plan(out), state(out).done
    for one in plan:
        if one.name in done and not (run_path(out, begun, one) / "DONE").exists():
            unmark(out, one.name)  # its run was removed
    total, left = len({one.name for one in plan}), [one.name for one in state(out).left(plan)]
    Queue(out, begun).fill(left)
    try:
        if workers == 1:
            work(out, quiet=quiet)
        elif left:
            share(out, total, lambda: len(state(out).left(plan)), workers, threads, quiet=quiet)
    finally:
        collect(out)


def _begun(study: Study, out: Path, begun: Begun) -> Begun:
    """Write study.json and the plan, or check that the study in `out` is this one. More seeds than
    it began with are taken on."""
    if (out / STUDY_FILE).is_file():
        return _go_on(study, out)
    refuse_existing(out)
    plan = make_plan(study, opener())
    if begun.storage:
        Queue(out, begun)  # it answers
    write_json(out / STUDY_FILE, to_dict(begun))
    write_plan(out, plan)
    return begun


def _go_on(study: Study, out: Path) -> Begun:
    begun = read_begun(out)
    grown = replace(begun.study, seeds=max(study.seeds, begun.study.seeds))
    asked = to_dict(replace(study, seeds=grown.seeds))
    for path, before, now in differences(to_dict(grown), asked):
        raise UserError(
            f"{out} must be gone on with as it began; {path} was {before!r} and is {now!r}; give "
            "the words that began it, or begin another study in another --out: runs that are the "
            "same are not run again"
        )
    if grown != begun.study or not has_plan(out):
        plan = make_plan(grown, opener())
        begun = replace(begun, study=grown)
        write_json(out / STUDY_FILE, to_dict(begun))
        write_plan(out, plan)
    return begun


def differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two JSON values differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            yield from differences(before.get(key), now.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for i, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from differences(one, other, f"{path}[{i}]")
    elif before != now:
        yield path, before, now


def share(
    out: Path,
    total: int,
    left: Callable[[], int],
    workers: int,
    threads: int | None,
    *,
    quiet: bool,
) -> None:
    """Have other processes work, and show how many runs of all are not `left`. Raises `UserError`
    where some are when the workers have ended."""
    each = threads or max(1, hardware.usable_cores() // workers)
    words = [sys.executable, "-m", "headwise", "study", "work", str(out), "--quiet"]
    env = {**os.environ, "OMP_NUM_THREADS": str(each)}
    logs = out / "workers"
    logs.mkdir(exist_ok=True)
    kept = f"the runs so far are kept in {out}; go on with the words that began it"
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_requests(kept))
        show = stack.enter_context(progress(out.name, total, quiet=quiet))
        files = [stack.enter_context((logs / f"{i}.log").open("ab")) for i in range(workers)]
        helpers = [subprocess.Popen(words, env=env, stdout=f, stderr=f) for f in files]
        asked_to_stop, ended = False, 0
        while any(helper.poll() is None for helper in helpers):
            if stop.exit_code is not None and not asked_to_stop:
                asked_to_stop = True
                for helper in helpers:
                    helper.terminate()
            now = total - left()
            if now > ended:
                show(now, "")
            ended = now
            pause()
    if stop.exit_code is not None:
        raise Interrupted(f"{out}: stopped; {kept}", stop.exit_code)
    if missing := left():
        raise UserError(
            f"{out} has {counted(missing, 'run')} left, because its workers ended; what they "
            f"said is in {logs}; go on with the words that began it"
        )
