"""How a command ends when it is asked to: SIGTERM from a scheduler, Ctrl-C from a person.

Python runs signal handlers between two operations, and one operation of training can take minutes.
So a thread of its own reads the signals as they arrive, answers at once, and ends the process if a
person insists.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Process managers send one request both to the process and to its group.
_SAME_REQUEST_SECONDS = 1.0

_unfinished = threading.RLock()


class Interrupted(Exception):
    """A command has stopped before its end, and what it did is kept.

    `exit_code` is 75 (a temporary failure: try again) for SIGTERM, so that a scheduler requeues the
    job, and 130 for Ctrl-C.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Terminated(KeyboardInterrupt):
    """SIGTERM has arrived outside of training. Like Ctrl-C, no `except Exception` catches it."""


class StopRequest:
    """Whether a signal has arrived."""

    def __init__(self) -> None:
        self.exit_code: int | None = None


@contextlib.contextmanager
def stop_requests(kept: str) -> Iterator[StopRequest]:
    """Record SIGTERM and Ctrl-C within the block instead of ending the process.

    The first signal is answered on standard error. Another one within a second counts as the same.
    A later one ends the process, and says what is `kept`, but never within `finished_first`. Only
    the main thread can handle signals; in other threads nothing is recorded.
    """
    request = StopRequest()
    first = 0.0

    def answer(number: int) -> None:
        nonlocal first
        now = time.monotonic()
        if request.exit_code is None:
            first = now
            request.exit_code = _exit_code(number)
            _say("finishing the step; press again to stop now")
        elif now - first > _SAME_REQUEST_SECONDS:
            with _unfinished:
                _say(f"stopped before the end of the step; {kept}")
                os._exit(request.exit_code)

    with _watched(answer, lambda number, frame: None):
        yield request


@contextlib.contextmanager
def ends_on_signals() -> Iterator[None]:
    """Raise `Terminated` for SIGTERM and `KeyboardInterrupt` for Ctrl-C within the block, once for
    signals within a second. A later signal ends the process if the first has not."""
    first: float | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def answer(number: int) -> None:
        if first is not None and time.monotonic() - first > _SAME_REQUEST_SECONDS:
            _say("stopped")
            os._exit(_exit_code(number))

    with _watched(answer, handle):
        yield


@contextlib.contextmanager
def finished_first() -> Iterator[None]:
    """A block that is always finished before a signal ends the process."""
    with _unfinished:
        yield


@contextlib.contextmanager
def _watched(
    answer: Callable[[int], None], handle: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Call `answer` with every signal as it arrives, in a thread, and `handle` in this one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = {stop: signal.signal(stop, handle) for stop in STOP_SIGNALS}
    fd_before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        while number := ours.recv(1):
            if number[0] in STOP_SIGNALS:
                answer(number[0])

    thread = threading.Thread(target=watch, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(fd_before)
        for stop, handler in before.items():
            signal.signal(stop, handler)
        theirs.shutdown(socket.SHUT_RDWR)  # workers have it too, so closing it is not enough
        thread.join()
        theirs.close()
        ours.close()


def _exit_code(number: int) -> int:
    return 75 if number == signal.SIGTERM else 130


def _say(message: str) -> None:
    """Write one line on standard error, without Python's locks, which the main thread may hold."""
    with contextlib.suppress(OSError):
        if os.environ.get("RANK", "0") == "0":
            cursor = "\x1b[?25h\n" if os.isatty(2) else ""  # a progress bar hides it
            os.write(2, f"{cursor}headwise: {message}\n".encode(errors="replace"))
