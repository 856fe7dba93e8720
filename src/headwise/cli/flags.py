"""Reading a command's words: short flags, the dataclass they fill, and errors in one line."""

import contextlib
import dataclasses
import io
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro

from headwise.errors import UserError, nearest

# What people change most has a short flag, the same in every command.
SHORT_FLAGS = {
    "--data": "--data.spec",
    "--limit": "--data.limit",
    "--encoder": "--encoder.name",
    "--head": "--head.name",
    "--lr": "--optim.lr",
}
_SHORT_HELP = (
    "Short flags: " + ", ".join(f"{s} for {long}" for s, long in SHORT_FLAGS.items()) + "."
)

Command = TypeVar("Command")


def parse(name: str, start: type[Command] | Command, words: list[str]) -> Command:
    """The command that the words describe. `start` is its type, or an instance with defaults.

    Raises `UserError` in one line where the words do not fit.
    """
    kind = start if isinstance(start, type) else type(start)
    known = {*_flags(kind, ""), "--help", "-h"}
    for word in words:
        flag = word.partition("=")[0]
        if flag.startswith("--") and flag.replace("_", "-") not in known:
            guess = nearest(flag, [*SHORT_FLAGS, *known]).partition("Choices")[0]
            raise UserError(f"{name} has no flag {flag}: {guess}headwise {name} --help lists them")
    about = f"{kind.__doc__} {_SHORT_HELP}"
    default = None if isinstance(start, type) else start
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                kind, prog=f"headwise {name}", description=about, args=words, default=default
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(f"{name}: {_first_line(said.getvalue())}") from None


def _flags(kind: Any, prefix: str) -> Iterator[str]:
    """All flags that a command's dataclass gives."""
    hints = typing.get_type_hints(kind)
    for one in dataclasses.fields(kind):
        inner, name = hints[one.name], one.name.replace("_", "-")
        if dataclasses.is_dataclass(inner):
            flat = name in ("pretrain", "evaluate", "fusion")
            yield from _flags(inner, prefix if flat else f"{prefix}{name}.")
        else:
            yield from (f"--{prefix}{name}", f"--{prefix}no-{name}")


def _first_line(box: str) -> str:
    """What tyro says in its box, in one line, without the frame and the hints below it."""
    lines = []
    for line in box.splitlines()[1:]:  # the first is the title
        text = line.strip("│╭╮╰╯─|+- ")
        if text:
            lines.append(text)
        elif lines:
            break
    said = " ".join(lines)
    choice = re.match(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)", said)
    if choice is None:
        return said
    given, flag, choices = choice.groups()
    return f"{flag} cannot be {given!r}; {nearest(given, _quoted(choices))}"


def _quoted(text: str) -> list[str]:
    return re.findall(r"'(.*?)'", text)


def given(words: list[str], flag: str) -> str | None:
    """The value of a flag, before the words are parsed in full."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == flag:
            return following
        if word.startswith(flag + "="):
            return word.removeprefix(flag + "=")
    return None


def long_flags(words: Sequence[str]) -> list[str]:
    """The words with short flags written out."""
    parts = [word.partition("=") for word in words]
    return [SHORT_FLAGS.get(flag, flag) + equals + value for flag, equals, value in parts]
