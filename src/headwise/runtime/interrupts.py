"""Stop a run between two steps and save its state."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupted(Exception):
    """A signal has stopped the run, and its state is saved.

    `exit_code` is 75 (a temporary failure: try again) for SIGTERM, so that a scheduler requeues the
    job, and 130 for Ctrl-C.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopRequest:
    """Records whether a signal has arrived. A second signal ends the process immediately."""

    def __init__(self) -> None:
        self.exit_code: int | None = None

    def record(self, number: int, frame: FrameType | None) -> None:
        self.exit_code = 75 if number == signal.SIGTERM else 130
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, signal.SIG_DFL)


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Record SIGTERM and Ctrl-C within the block instead of ending the process. Only the main
    thread can handle signals; in other threads nothing is recorded."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {stop: signal.signal(stop, request.record) for stop in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler)
