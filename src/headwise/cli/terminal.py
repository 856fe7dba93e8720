"""What a command says: the first of several processes speaks for all."""

import contextlib
import os
import sys


def first_rank() -> bool:
    """Whether this process is the first that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def say(*lines: object) -> None:
    """Print on standard output, in the first process only."""
    if first_rank():
        print(*lines, sep="\n")


def complain(message: object) -> None:
    """Print one line on standard error; later processes say which they are."""
    rank = "" if first_rank() else f"rank {os.environ['RANK']}: "
    with contextlib.suppress(OSError, ValueError):  # its reader may have gone
        print(f"headwise: {rank}{message}", file=sys.stderr, flush=True)


def open_closed_streams() -> None:
    """Give a process that was started without standard streams (`2>&-`) the null device for them.
    Otherwise the next file that it opens takes their place, and a message ends up in it."""
    null = os.open(os.devnull, os.O_RDWR)
    while null < 3:
        null = os.open(os.devnull, os.O_RDWR)
    os.close(null)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
