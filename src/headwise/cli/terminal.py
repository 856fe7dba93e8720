"""What a command says: the first of several processes speaks for all."""

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
    print(f"headwise: {rank}{message}", file=sys.stderr)
