"""Commands in processes of their own that need not import anything again."""

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headwise.cli.main import main


@dataclass
class Forked:
    """A command that runs in a group of processes of its own."""

    process: int
    log: Path
    """Its standard output and error."""

    def signal(self, number: int) -> None:
        """As a terminal or a scheduler does: to the whole group."""
        os.killpg(self.process, number)

    def end(self, seconds: float = 60) -> int:
        """Wait for its end; its exit code."""
        deadline = time.monotonic() + seconds
        while True:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                self.signal(signal.SIGKILL)
                os.waitpid(self.process, 0)
                raise AssertionError(f"it did not end: {self.log.read_text()}")
            time.sleep(0.005)

    def await_text(self, text: str, seconds: float = 60) -> None:
        """Wait until it has said this."""
        await_true(lambda: self.log.exists() and text in self.log.read_text(), seconds)

    @property
    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process}/task/{self.process}/children")
        return [int(word) for word in path.read_text().split()]


def await_true(found: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def forked(
    words: list[str],
    log: Path,
    prepare: Callable[[], None] = lambda: None,
    *,
    stderr: Path | None = Path("log"),
) -> Forked:
    """Run `headwise WORDS` after `prepare` in a fork. Its standard error goes where its output goes
    unless `stderr` is another file; None closes it, as `2>&-` does."""

    def run() -> None:
        # pytest's handlers are this process's; the command sets up its own.
        logging.getLogger().handlers.clear()
        prepare()
        main(words)

    return in_fork(run, log, stderr=stderr)


def in_fork(
    function: Callable[[], None], log: Path, *, stderr: Path | None = Path("log")
) -> Forked:
    """Call the function in a fork, which ends with it. The rest is as for `forked`."""
    log.unlink(missing_ok=True)  # what an earlier process said is not what this one says
    process = os.fork()
    if process:
        return Forked(process, log)
    code = 70
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        if stderr is None:
            os.close(2)
            sys.stderr = None
        else:
            own = stderr != Path("log")
            os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT) if own else file, 2)
            sys.stderr = os.fdopen(2, "w", closefd=False)
        function()
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        os.write(1, traceback.format_exc().encode())
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)
    raise AssertionError("the fork ends above")
