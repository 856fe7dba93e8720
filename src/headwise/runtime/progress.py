"""Progress of a long job: a live bar on a terminal, else a plain line every 30 seconds."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

PLAIN_EVERY_SECONDS = 30.0

Update = Callable[[int, str], None]
"""Takes the number of completed steps and a short text to show beside it."""


@contextlib.contextmanager
def progress(name: str, total: int, *, done: int = 0, quiet: bool = False) -> Iterator[Update]:
    """Show completed steps out of `total` and the remaining time on standard error, if there is
    one."""
    if quiet or sys.stderr is None or sys.stderr.closed:
        yield lambda step, words: None
    elif sys.stderr.isatty():
        with _bar(name, total, done) as update:
            yield update
    else:
        yield _lines(name, total, done)


@contextlib.contextmanager
def _bar(name: str, total: int, done: int) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=total, completed=done, words="")
        yield lambda step, words: bar.update(task, completed=step, words=words)


def _lines(name: str, total: int, done: int) -> Update:
    start = last_line = time.monotonic()

    def update(step: int, words: str) -> None:
        nonlocal last_line
        now = time.monotonic()
        if now - last_line < PLAIN_EVERY_SECONDS and step < total:
            return
        last_line = now
        line = f"{name} {step}/{total} {words}".rstrip()
        if step > done:
            line += f" {(now - start) / (step - done) * (total - step):.0f} s left"
        with contextlib.suppress(OSError, ValueError):  # its reader may have gone
            print(line, file=sys.stderr, flush=True)

    return update
