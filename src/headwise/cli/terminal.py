"""What a command says: the first of several processes speaks for all."""

import codecs
import contextlib
import io
import os
import sys
import unicodedata

_TABLE = """
−|- –|- —|- ·|. ×|x ÷|/ ’|' √|sqrt ∞|inf ≈|~ ≥|>= ≤|<= ←|<- →|-> ±|+/- ‖|||
α|a β|b δ|d ε|e λ|lambda μ|mu π|pi ρ|rho σ|sigma τ|tau Σ|S
"""
_SIGNS = {sign: letters for sign, _, letters in (p.partition("|") for p in _TABLE.split())}


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


def degrade_signs() -> None:
    """Let standard output and error write what their encoding lacks as the nearest letters."""
    codecs.register_error("headwise", _nearest_letters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="headwise")


def _nearest_letters(error: UnicodeError) -> tuple[str, int]:
    """`±` as `+/-`, `é` as `e`, and as its number what has no letters."""
    assert isinstance(error, UnicodeEncodeError)
    letters = []
    for sign in error.object[error.start : error.end]:
        plain = unicodedata.normalize("NFKD", _SIGNS.get(sign, sign)).encode("ascii", "ignore")
        letters.append(plain.decode() or sign.encode("ascii", "backslashreplace").decode())
    return "".join(letters), error.end
