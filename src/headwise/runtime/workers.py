"""Functions called in worker processes, with results in order.

torch's DataLoader passes results through /dev/shm, which is 64 MiB in a container by default, and
ends the process from a signal handler when a worker dies. Here results pass through memory that
parent and worker share since the fork and that no mount limits. The death of a worker is an
exception in the parent's own call.
"""

import contextlib
import dataclasses
import io
import mmap
import os
import pickle
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Any, TypeVar

import torch
from torch import Tensor

from headwise.errors import UserError
from headwise.runtime.interrupts import STOP_SIGNALS, Interrupted

Result = TypeVar("Result")

_CREDIT = b"+"


class WorkerDied(Interrupted):
    """A worker process has ended before its work was done."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"a decoding worker {reason}, most often for lack of memory: use fewer --workers or "
            "smaller images",
            75,
        )


def in_workers(
    call: Callable[[int], Result], keys: Sequence[int], workers: int, *, ahead: int, room: int
) -> Iterator[Result]:
    """Yield `call(key)` for every key in order, computed in `workers` processes (0: in this one).

    Each worker is at most `ahead` results ahead. `room` is the number of bytes that a result's
    tensors usually need; larger results are slower. Raises what `call` raises, and `WorkerDied`.
    """
    if workers == 0:
        yield from map(call, keys)
        return
    pool: list[_Worker] = []
    try:
        for part in range(min(workers, len(keys))):
            pool.append(_start(call, keys[part::workers], pool, ahead, room))
        for i in range(len(keys)):
            yield pool[i % workers].take()
    finally:
        for worker in pool:
            worker.end()


@dataclasses.dataclass
class _Worker:
    """The parent's view of one worker."""

    process: int
    connection: Connection
    slots: list[memoryview]
    """Shared memory for `ahead` results, used in turn."""
    taken: int = 0

    def take(self) -> Any:
        """Return the next result, and allow the worker another one."""
        try:
            sizes, content = self.connection.recv()
        except (EOFError, OSError):
            raise WorkerDied(self.reason()) from None
        slot, start, buffers = self.slots[self.taken % len(self.slots)], 0, []
        for size in sizes:
            buffers.append(bytearray(slot[start : start + size]))
            start += size
        result, error = pickle.loads(content, buffers=buffers)
        self.taken += 1
        with contextlib.suppress(OSError):  # it may have finished
            self.connection.send_bytes(_CREDIT)
        if error is not None:
            raise error
        return result

    def reason(self) -> str:
        """Return how the process ended."""
        _, status = os.waitpid(self.process, 0)
        self.process = 0
        if os.WIFSIGNALED(status):
            return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
        return f"ended with exit code {os.waitstatus_to_exitcode(status)}"

    def end(self) -> None:
        self.connection.close()
        if self.process:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)


def _start(
    call: Callable[[int], Any], keys: Sequence[int], others: list[_Worker], ahead: int, room: int
) -> _Worker:
    """Fork a worker. It ignores SIGTERM and Ctrl-C, which a terminal or a scheduler sends to all
    processes of a job: only the parent decides when to stop."""
    memory = memoryview(mmap.mmap(-1, ahead * room))
    slots = [memory[i * room : (i + 1) * room] for i in range(ahead)]
    own, theirs = Pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: threads and fork
            process = os.fork()
        if process == 0:
            code = 1
            try:
                _become_worker()
                for connection in (own, *(other.connection for other in others)):
                    connection.close()  # so that every end of a process closes its pipe
                _work(call, keys, theirs, slots)
                code = 0
            finally:
                os._exit(code)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return _Worker(process, own, slots)


def _become_worker() -> None:
    signal.set_wakeup_fd(-1)  # it is the parent's
    for stop in STOP_SIGNALS:
        signal.signal(stop, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    torch.set_num_threads(1)


def _work(
    call: Callable[[int], Any], keys: Sequence[int], parent: Connection, slots: list[memoryview]
) -> None:
    """Send a result for every key, until the parent's end of the pipe closes."""
    for i, key in enumerate(keys):
        with contextlib.suppress(EOFError, OSError):
            if i >= len(slots):
                parent.recv_bytes()
            sizes, content, error = _packed(call, key, slots[i % len(slots)])
            parent.send((sizes, content))
            if not error:
                continue
        return


def _packed(
    call: Callable[[int], Any], key: int, slot: memoryview
) -> tuple[list[int], bytes, bool]:
    """The result, or what was raised, as a pickle; its tensors are in the slot if they fit."""
    result, error = None, None
    try:
        result = call(key)
    except UserError as found:
        error = UserError(str(found))
    except Exception as found:
        error = RuntimeError(f"a decoding worker failed: {type(found).__name__}: {found}")
    buffers: list[pickle.PickleBuffer] = []
    content = _pickled((result, error), buffers.append)
    parts = [buffer.raw() for buffer in buffers]
    sizes = [part.nbytes for part in parts]
    if sum(sizes) > len(slot):
        return [], _pickled((result, error), None), error is not None
    start = 0
    for part, size in zip(parts, sizes, strict=True):
        slot[start : start + size] = part
        start += size
    return sizes, content, error is not None


class _Pickler(pickle.Pickler):
    """Tensors are pickled as arrays, whose bytes can stay outside the pickle."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.from_numpy, (value.contiguous().numpy(),)
        return NotImplemented


def _pickled(value: Any, aside: Callable[[pickle.PickleBuffer], Any] | None) -> bytes:
    file = io.BytesIO()
    _Pickler(file, protocol=5, buffer_callback=aside).dump(value)
    return file.getvalue()
