"""The help of a command: the flags that people use, or all of them, with their defaults."""

import dataclasses
import inspect
import shutil
import textwrap
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headwise.cli.flags import Flag, choices, config_kind
from headwise.cli.words import Given
from headwise.own_code import OwnCode

_WORDS = {
    int: "INT",
    float: "NUMBER",
    Path: "PATH",
    str: "TEXT",
    OwnCode: "FILE:FUNCTION",
    dict: "NAME=VALUE",
}

# Stands for the size of h, which only the encoder knows, among the settings of a head.
_SIZE_OF_H = 2**20


def help_text(given: Given[Any]) -> str:
    """The help that was asked for. Defaults are those that the other words given lead to, such as
    `--recipe`."""
    line = given.line
    places = [flag for flag in line.flags if flag.positional]
    flags = [flag for flag in line.flags if not flag.positional]
    words = " ".join(f"[{_usage(flag)}]" if flag.optional else _usage(flag) for flag in places)
    about = inspect.getdoc(line.kind) or ""
    lines = [f"usage: headwise {line.name} {words}".rstrip() + (" [options]" if flags else "")]
    lines += ["", *_wrapped(about), "", f"example: {line.example}", ""]
    if given.help == "all":
        shown = places + [flag for flag in flags if not flag.group]
        lines += _entries(shown, given)
        for group in dict.fromkeys(flag.group for flag in flags if flag.group):
            lines += [f"{group}.*", *_wrapped(_about_group(flags, group, given), "  "), ""]
            lines += _entries([flag for flag in flags if flag.group == group], given)
    else:
        lines += _entries(places, given)
        by_path = {flag.path: flag for flag in flags}
        lines += _entries([by_path[path] for path in line.usual.split()], given)
        if len(line.usual.split()) < len(flags):
            lines.append(f"headwise {line.name} --help all shows all {len(flags)} flags.")
    return "\n".join(lines).rstrip() + "\n"


def _entries(flags: list[Flag], given: Given[Any]) -> Iterator[str]:
    """A flag's names, and below them its description and its default."""
    values = given.starting_values()
    for flag in flags:
        yield f"  {_usage(flag)}"
        yield from _wrapped(flag.text + _default(flag, values), "      ")
        yield ""


def _usage(flag: Flag) -> str:
    if flag.positional:
        return flag.name + " ..." * (flag.count is None)
    names = ", ".join(flag.names)
    if flag.switch:
        return f"{names}, {flag.off_names[0]}"
    allowed = choices(flag.hint)
    kinds = typing.get_args(flag.hint) or (flag.hint,)
    word = f"{{{','.join(allowed)}}}" if allowed else _WORDS[kinds[0]]
    return f"{names} " + (f"{word} ..." if flag.count is None else " ".join([word] * flag.count))


def _default(flag: Flag, values: Mapping[str, Any]) -> str:
    """The value without the flag, as it would be typed."""
    if flag.place[0] not in values:
        return "" if flag.positional else " (required)"
    if flag.positional or flag.hint in (OwnCode, dict):
        return ""
    value = values[flag.place[0]]
    for name in flag.place[1:]:
        if value is None:
            return " (default: the run's)"
        if flag.group == "head" and name == flag.place[-1]:
            return _default_of_head(value, name)
        value = getattr(value, name)
    explained = value is not None or "None:" in flag.text
    return f" (default: {_typed(value)})" if explained else ""


def _default_of_head(config: Any, name: str) -> str:
    """What the head itself has where its `HeadConfig` says None."""
    from headwise.heads import resolve

    value = getattr(resolve(config, _SIZE_OF_H), name)
    if value is None:
        return f" ({config.name} has none)"
    size = "the size of h" if value == _SIZE_OF_H else _typed(value)
    return f" (default: {size})" if name == "name" else f" (default of {config.name}: {size})"


def _typed(value: Any) -> str:
    match value:
        case bool():
            return "on" if value else "off"
        case tuple():
            return " ".join(map(str, value)) or "none"
    return str(value) or "none"


def _about_group(flags: list[Flag], group: str, given: Given[Any]) -> str:
    """The docstring of the config that these flags belong to."""
    kind = given.line.kind
    for name in next(flag.place for flag in flags if flag.group == group)[:-1]:
        kind = config_kind(kind, name)
    assert dataclasses.is_dataclass(kind), "flags are made from dataclasses"
    return inspect.getdoc(kind) or ""


def _wrapped(text: str, indent: str = "") -> list[str]:
    width = min(100, max(60, shutil.get_terminal_size().columns))
    return textwrap.wrap(
        " ".join(text.split()), width, initial_indent=indent, subsequent_indent=indent
    )
