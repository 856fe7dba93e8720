"""A full disk at every kind of write: one line, nothing half-written, and a right end later."""

import contextlib
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from jobs import Job, finished, start

SIZE_MIB = 8


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A file system of its own of a few MiB; None where mounting is not allowed."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(folder)]
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, *options], capture_output=True).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(job: Job, count: int, disk: Path, log: Path) -> list[str]:
    """Run a job with less and less space than it needs, then with enough; what went wrong."""
    place, filler = disk / "job", disk / "filler"
    job.prepare(place)
    before = _used(disk)
    finished(job, job.words(place), log)
    expected, needed = job.end(place), _used(disk) - before
    draw, wrong = random.Random(job.name), []
    for i in range(count):
        shutil.rmtree(place)
        job.prepare(place)
        room = round(needed * draw.random() ** 2)
        filler.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - room)))
        try:
            (code,) = (process.end(60) for process in start(job, job.words(place), log))
            said = log.read_text()
            told = [line for line in said.splitlines() if "No space left on device" in line]
            assert code in (0, 2), f"exit {code}: {said}"
            assert code == 0 or len(told) == 1, f"it said: {said}"
            filler.unlink()
            if code:
                finished(job, job.go_on(place), log)
            assert job.end(place) == expected, "another end than with enough space"
        except AssertionError as error:
            wrong.append(f"{job.name}, {room} bytes free, case {i}: {error}")
        finally:
            filler.unlink(missing_ok=True)
    shutil.rmtree(place)
    return wrong


def _used(disk: Path) -> int:
    return shutil.disk_usage(disk).used
