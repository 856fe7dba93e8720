"""Reading the words of a command, once: which flags were given, with which values.

tyro reads the values. What is said where one does not fit is ours: one line, which names the flag
as it was typed.
"""

import contextlib
import dataclasses
import difflib
import io
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from headwise.cli.flags import Flag, choices, config_kind, flags_of, instead_of, own_setting
from headwise.errors import UserError, nearest
from headwise.own_code import OwnCode, names_code, own

Command = TypeVar("Command")


@dataclass(frozen=True, kw_only=True)
class CommandLine(Generic[Command]):
    """One command: its flags, its help, and what it does."""

    kind: type[Command]
    """The dataclass whose fields are the flags. The command is called as its class."""
    example: str
    """Words that would do."""
    usual: str
    """The settings that the short help shows, with spaces between."""
    run: Callable[["Given[Command]"], None]
    bases: Callable[["Given[Command]"], Mapping[str, object]] = lambda given: {}
    """Fields of the command whose values, which the flags then change, are not the defaults."""

    light: str = ""
    """A first word with which it computes nothing, so that torch is not imported."""

    @property
    def name(self) -> str:
        return self.kind.__name__.lower()

    @property
    def flags(self) -> tuple[Flag, ...]:
        return tuple(flag for flag in flags_of(self.kind) if not flag.absent)


@dataclass(frozen=True, kw_only=True)
class Given(Generic[Command]):
    """The words of a command, read."""

    line: CommandLine[Command]
    values: Mapping[str, Any]
    """The value of every flag that was given, by its setting (`data.limit`)."""
    help: Literal["no", "usual", "all"] = "no"
    words: tuple[str, ...] = ()
    """As they were typed."""

    def under(self, *groups: str) -> list[str]:
        """The names of the given flags that belong to these configs."""
        return [f.name for f in self.line.flags if f.group in groups and f.path in self.values]

    def need(self, path: str) -> Any:
        """The value of a flag that must be given."""
        if self.values.get(path) is None:
            name = next(flag.name for flag in self.line.flags if flag.path == path)
            raise UserError(
                f"{self.line.name} needs {name}; got none; for example: {self.line.example}"
            )
        return self.values[path]

    def starting_values(self, bases: Mapping[str, object] | None = None) -> dict[str, Any]:
        """What the flags change: the values of the command's fields that have one."""
        values = dict(self.line.bases(self) if bases is None else bases)
        for field in dataclasses.fields(typing.cast(Any, self.line.kind)):
            if field.name not in values and field.default_factory is not MISSING:
                values[field.name] = field.default_factory()
            elif field.name not in values and field.default is not MISSING:
                values[field.name] = field.default
        return values

    def command(self, bases: Mapping[str, object] | None = None) -> Command:
        """The command with its flags laid over the defaults, or over `bases` where they name a
        field. Raises `UserError` for a required word that is missing and a value that is wrong.
        """
        values = self.starting_values(bases)
        for flag in self.line.flags:
            if len(flag.place) == 1 and flag.place[0] not in values:
                self.need(flag.path)
        changes = {f.place: self.values[f.path] for f in self.line.flags if f.path in self.values}
        for name in dict.fromkeys(place[0] for place in changes):
            inner = {place[1:]: value for place, value in changes.items() if place[0] == name}
            if () in inner:
                values[name] = inner[()]
            else:
                base = values[name]
                base = config_kind(self.line.kind, name)() if base is None else base
                values[name] = _laid_over(base, inner)
        return self.line.kind(**values)


def _laid_over(config: Any, changes: Mapping[tuple[str, ...], object]) -> Any:
    """A config with the values at these places replaced."""
    values = {place[0]: value for place, value in changes.items() if len(place) == 1}
    for name, value in values.items():
        if isinstance(value, OwnCode):
            values[name] = value.continued(getattr(config, name))
    for name in dict.fromkeys(place[0] for place in changes if len(place) > 1):
        inner = {place[1:]: value for place, value in changes.items() if place[0] == name}
        base = values.get(name, getattr(config, name))
        if base is None:
            raise UserError(
                f"settings are for code of your own; got {inner[('settings',)]}; name it too, as "
                "in --head FILE:function"
            )
        values[name] = _laid_over(base, {place: v for place, v in inner.items() if place})
    return dataclasses.replace(config, **values)


def read_words(line: CommandLine[Command], words: Sequence[str]) -> Given[Command]:
    """The flags and positional words of a command. Raises `UserError`."""
    by_name = {name: flag for flag in line.flags for name in flag.names}
    off = {name: flag for flag in line.flags for name in flag.off_names}
    by_path = {flag.path: flag for flag in line.flags}
    places = [flag for flag in line.flags if flag.positional]
    values: dict[str, Any] = {}
    typed: dict[str, str] = {}
    rest, before = list(words), ""
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help"):
            return Given(line=line, values=values, help="all" if rest[:1] == ["all"] else "usual")
        if not _is_flag(word):
            free = (flag for flag in places if flag.count is None or flag.path not in values)
            flag = next(free, None)
            if flag is None:
                raise _surplus(line, before, word)
            value = _value(flag, flag.name, [word])
            values[flag.path] = values.get(flag.path, ()) + value if flag.count is None else value
            continue
        before, equals, text = word.partition("=")
        name = before.replace("_", "-")
        flag = by_name.get(name) or off.get(name)
        if flag is None:
            raise _unknown(line, before)
        # Of the same flag the last counts, as a script may append to its words.
        if typed.setdefault(flag.path, name) != name:
            raise UserError(f"{before} and {typed[flag.path]} are one setting; leave one out")
        texts = [text] if equals else _take(flag, rest)
        if texts and names_code(texts[0]):
            flag = by_path.get(f"{flag.path.removesuffix('.name')}.own", flag)
        if name in off and texts:
            raise UserError(f"{before} takes no value; got {texts[0]!r}; leave the value out")
        texts = ["False"] if name in off else texts or (["True"] if flag.switch else [])
        values[flag.path] = _value(flag, before, texts)
        for other in instead_of(flag.path):
            values.pop(other, None)
    return Given(line=line, values=values, words=tuple(words))


def _is_flag(word: str) -> bool:
    """Whether a word starts with a dash and is not a negative number."""
    if not word.startswith("-") or word == "-":
        return False
    try:
        float(word)
    except ValueError:
        return True
    return False


def _take(flag: Flag, rest: list[str]) -> list[str]:
    """Take the words of a flag's value from the front of those that are left."""
    if flag.switch:
        said = ("true", "false", "none") if flag.optional else ("true", "false")
        return [rest.pop(0)] if rest and rest[0].lower() in said else []
    taken = []
    while rest and not _is_flag(rest[0]) and (flag.count is None or len(taken) < flag.count):
        taken.append(rest.pop(0))
        if flag.optional and taken == ["None"]:
            break
    if flag.count == 1 and taken and choices(flag.hint):
        # Words for one value are an error here, where they can be named together.
        while rest and rest[0] in choices(flag.hint):
            taken.append(rest.pop(0))
    return taken


def _value(flag: Flag, name: str, texts: list[str]) -> Any:
    """The value that these words say. Raises `UserError` where they say none."""
    if flag.optional and [text.lower() for text in texts] == ["none"]:
        return None
    must, got = _must(flag), " ".join(texts)
    if texts and flag.hint is OwnCode:
        return own(texts[0])
    if texts and flag.hint is dict:
        return dict(own_setting(name, text) for text in texts)
    if flag.switch:
        texts = [text.capitalize() for text in texts]
    if not texts:
        raise UserError(f"{name} must be {must}; got nothing after it")
    allowed = choices(flag.hint)
    if (flag.count is not None and len(texts) != flag.count) or (
        flag.count == 1 and allowed and "," in got
    ):
        if allowed:
            advice = "headwise compare --heads takes several" if flag.path == "head.name" else must
            raise UserError(f"{name} takes one value; got {got!r}; {advice}")
        raise UserError(f"{name} must be {must}; got {got!r}")
    wrong = [text for text in texts if allowed and text not in allowed]
    if wrong and "," in wrong[0]:
        spaced = " ".join(got.replace(",", " ").split())
        raise UserError(
            f"{name} takes its values with spaces between; got {got!r}; write {name} {spaced}"
        )
    if wrong:
        raise UserError(f"{name} cannot be {wrong[0]!r}; {nearest(wrong[0], allowed)}")
    import tyro

    try:
        # Some errors are printed although `console_outputs` is off.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return tyro.cli(flag.hint, args=texts, console_outputs=False)
    except SystemExit:
        raise UserError(f"{name} must be {must}; got {got!r}") from None


def _must(flag: Flag) -> str:
    """What a flag's value must be, in words."""
    if allowed := choices(flag.hint):
        return f"one {'or more ' * (flag.count is None)}of {', '.join(allowed)}"
    kinds = typing.get_args(flag.hint) or (flag.hint,)
    one, several = {
        int: ("a whole number", "whole numbers"),
        float: ("a number", "numbers"),
        bool: ("True or False", ""),
        Path: ("a path", "paths"),
        OwnCode: ("FILE:function", ""),
        dict: ("", "settings such as width=64"),
    }.get(kinds[0], ("one word", "words"))
    if flag.count is None:
        return several
    words = one if flag.count == 1 else f"{flag.count} {several}"
    return words + " or None" if flag.optional else words


def _surplus(line: CommandLine[Any], before: str, word: str) -> UserError:
    """The error for a word that belongs to no flag and no place."""
    flag = next((f for f in line.flags if before in (*f.names, *f.off_names)), None)
    if flag is None:
        places = " ".join(flag.name for flag in line.flags if flag.positional)
        takes = f"takes {places} and flags" if places else "takes flags only"
        return UserError(f"{line.name} {takes}; got {word!r}; for example: {line.example}")
    takes = "no value" if flag.switch else f"{flag.count} value" + "s" * (flag.count != 1)
    return UserError(f"{before} takes {takes}; got {word!r} after it; leave it out")


def _unknown(line: CommandLine[Any], typed: str) -> UserError:
    """The error for a flag that the command does not have, with the nearest that it has."""
    name = typed.replace("_", "-")
    flags = [flag for flag in line.flags if not flag.positional]
    on = name.replace("no-", "", 1)
    for flag in flags:
        if on != name and on in flag.names:
            return UserError(
                f"{line.name} has no flag {typed}; {on} is not a switch; "
                "give it a value, or leave it out"
            )
    absent = next((f.absent for f in flags_of(line.kind) if f.absent and name in f.names), "")
    if absent:
        return UserError(f"{line.name} has no flag {typed}: {absent}; leave it out")
    of_group = [f.long_name for f in flags if f.long_name.startswith(f"{name}.")]
    same_field = [f.name for f in flags if f.long_name.rpartition(".")[2] == name.lstrip("-")]
    names = [n for f in flags for n in f.names]
    if name.startswith("--no-"):
        names = [n for f in flags for n in f.off_names]
    near = (
        of_group
        or same_field
        or difflib.get_close_matches(name, [*names, "--help"], n=1, cutoff=0.6)
    )
    guess = f"did you mean {near[0]!r}? " if near else ""
    return UserError(
        f"{line.name} has no flag {typed}; {guess}headwise {line.name} --help all lists its flags"
    )
