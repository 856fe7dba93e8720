"""Errors of the libraries that read data become ours: one line that names the file."""

import contextlib
from collections.abc import Iterator

from headwise.errors import UserError

LARGE_BYTES = 2**26
MOST_EXPANSION = 100
"""Larger data that unpack to more than this many times their size are no images."""


@contextlib.contextmanager
def one_line(must: str) -> Iterator[None]:
    """Turn every error in the block into a `UserError` that begins with `must`: the file, and what
    must hold. Readers raise errors of any kind on damaged files, also for want of memory."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{must}: {line_of(error)}") from error


@contextlib.contextmanager
def unreadable() -> Iterator[None]:
    """Turn every error in the block into an `OSError` of one line."""
    try:
        yield
    except Exception as error:
        raise OSError(line_of(error)) from error


def line_of(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def check_expansion(packed_bytes: int, unpacked_bytes: int) -> None:
    """Raise `OSError` if data would unpack to far more than images do."""
    if unpacked_bytes > max(LARGE_BYTES, MOST_EXPANSION * packed_bytes):
        raise OSError(
            f"{packed_bytes} bytes that would unpack to {unpacked_bytes / 2**20:,.0f} MiB "
            "are no images"
        )
