"""The errors that users see, in one grammar: who, what must hold, what was given, what to do."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user gave cannot be used. The message is one line; the command exits with 2."""


def nearest(given: str, choices: Iterable[str]) -> str:
    """The end of an error message: the nearest choice, then all of them (at most twelve)."""
    choices = list(choices)
    close = difflib.get_close_matches(given, choices, n=1, cutoff=0.5)
    guess = f"did you mean {close[0]!r}? " if close else ""
    listed = ", ".join(choices[:12]) + (", …" if len(choices) > 12 else "")
    return f"{guess}Choices: {listed}"
