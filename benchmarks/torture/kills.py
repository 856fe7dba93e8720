"""SIGKILL and SIGTERM at random moments: what goes on ends as if nothing had happened."""

import random
import signal
import time
from pathlib import Path

from jobs import Job, finished, start


def kill(job: Job, count: int, folder: Path) -> list[str]:
    """Stop a job `count` times, with each signal in turn, and go on; what went wrong."""
    folder.mkdir()
    job.prepare(folder / "whole")
    log = folder / "log"
    seconds = finished(job, job.words(folder / "whole"), log)
    expected = job.end(folder / "whole")
    draw, wrong, stopped = random.Random(job.name), [], 0
    for attempt in range(20 * count):
        if stopped == count:
            return wrong
        number = (signal.SIGKILL, signal.SIGTERM)[stopped % 2]
        place = folder / str(attempt)
        job.prepare(place)
        said = _stopped(job, place, number, draw.uniform(0.05, max(seconds, 0.1)), log)
        if said is None:  # it was quicker than the signal
            continue
        stopped += 1
        try:
            assert not said, said
            finished(job, job.go_on(place), log)
            assert job.end(place) == expected, "another end than that of the undisturbed command"
            left = [path.name for path in place.rglob(".*.tmp")]
            assert not left, f"{left} are left behind"
        except AssertionError as error:
            wrong.append(f"{job.name}, {number.name}: {error}")
    raise AssertionError(f"{job.name} ends before it can be stopped")


def _stopped(
    job: Job, place: Path, number: signal.Signals, seconds: float, log: Path
) -> str | None:
    """Start the job and send it a signal after some seconds. Returns what is wrong with how it
    ended, and None if it had ended before."""
    processes = start(job, job.words(place), log)
    time.sleep(seconds)
    for process in processes:
        process.signal(number)
    codes = [process.end(60) for process in processes]
    if codes[0] == 0:
        return None
    logs = [path.read_text() for path in log.parent.glob("log*") if path.is_file()]
    if any("Traceback" in text for text in logs):
        return "\n".join(["a traceback", *logs])
    # A process that has not come to its first line yet dies by the signal, and has done nothing.
    early = number == signal.SIGTERM and not any(logs) and codes[0] == -number
    fit = codes[0] == (-number if number == signal.SIGKILL else 75) or early
    return "" if fit else f"exit codes {codes}: {logs}"
