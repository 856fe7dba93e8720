"""Stopping a run between two steps, with its state saved."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupted(Exception):
    """The run was asked to stop, and its state is saved.

    `exit_code` is 75 (a temporary failure: try again) for SIGTERM, so that a scheduler requeues the
    job, and 130 for Ctrl-C.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopRequest:
    """Whether a signal has come. A second one acts at once."""

    def __init__(self) -> None:
        self.exit_code: int | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        self.exit_code = 75 if number == signal.SIGTERM else 130
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, signal.SIG_DFL)


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note SIGTERM and Ctrl-C instead of dying of them, in the main thread."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {stop: signal.signal(stop, request.note) for stop in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler)
