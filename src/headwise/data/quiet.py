"""Keep what the decoding libraries say for themselves off standard error."""

import contextlib
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator

_lock = threading.Lock()
_depth = 0
_filters = warnings.catch_warnings()

logger = logging.getLogger("headwise")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress Pillow's warnings while any thread is in the block.

    `catch_warnings` does not work with threads: if two blocks overlap, the second restores the
    filters of the first, and warnings stay off. Here the last thread that leaves restores them.
    """
    global _depth, _filters
    with _lock:
        if _depth == 0:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _filters.__exit__(None, None, None)


@contextlib.contextmanager
def hushed(name: str, level: int) -> Iterator[None]:
    """Catch what C libraries such as libtiff and libjpeg write to standard error in the block, and
    log how many lines there were and the first of them. Standard error belongs to the process, so
    only one thread may be in such a block, and nothing else should write there meanwhile."""
    try:
        if sys.__stderr__ is None:  # then file 2 may be any other file
            raise OSError("standard error is closed")
        saved, words = os.dup(2), tempfile.TemporaryFile()  # noqa: SIM115
    except OSError:
        yield
        return
    try:
        os.dup2(words.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        with words:
            words.seek(0)
            lines = words.read(2**20).decode(errors="replace").splitlines()
        if lines:
            logger.log(level, "%s: a library wrote %d lines: %s", name, len(lines), lines[0])
