"""The flags of a command: one for every field of its dataclass and of the configs inside."""

import ast
import dataclasses
import functools
import inspect
import json
import operator
import re
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from headwise.errors import UserError
from headwise.own_code import OwnCode

# What people change most has a short name, the same in every command.
SHORT_NAMES = {
    "data.spec": "--data",
    "data.limit": "--limit",
    "augment.own": "--augment",
    "encoder.name": "--encoder",
    "head.name": "--head",
    "optim.lr": "--lr",
    "k": "-k",
}


class Role(Enum):
    """Marks a field of a command, as `Annotated[..., Role.POSITIONAL]`."""

    POSITIONAL = "given by its place, without a flag"
    UNPREFIXED = "a config whose flags do not start with its name"


class Without(NamedTuple):
    """Marks a config of which a command has no flags for these fields, and says why."""

    fields: tuple[str, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag, or one positional word."""

    path: str
    """Its setting as written in Python: `data.spec`."""
    place: tuple[str, ...]
    """The fields that lead to it from the command: `("pretrain", "data", "spec")`."""
    hint: Any
    """The type of its value, without None."""
    optional: bool
    """Whether None is a value."""
    positional: bool
    text: str
    """The docstring under the field, in one line."""
    absent: str = ""
    """Why the command has no such flag; "" if it has it."""

    @property
    def group(self) -> str:
        """The config it belongs to: `data`; "" for the command's own."""
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        """As it is called in messages: its short name where it has one; `RUN` for a positional."""
        if self.positional:
            return self.path.upper()
        return SHORT_NAMES.get(self.path, self.long_name)

    @property
    def long_name(self) -> str:
        return "--" + self.path.replace("_", "-")

    @property
    def names(self) -> tuple[str, ...]:
        """The names that may be typed; the short one first."""
        return () if self.positional else tuple(dict.fromkeys((self.name, self.long_name)))

    @property
    def switch(self) -> bool:
        return self.hint is bool

    @property
    def off_names(self) -> tuple[str, ...]:
        """The names that turn a switch off: `--no-data.cache` and `--data.no-cache`."""
        if not self.switch:
            return ()
        prefix, dot, field = self.long_name.removeprefix("--").rpartition(".")
        return tuple(dict.fromkeys((f"--no-{prefix}{dot}{field}", f"--{prefix}{dot}no-{field}")))

    @property
    def count(self) -> int | None:
        """How many words its value takes; None: any number."""
        if self.hint is dict:
            return None
        if get_origin(self.hint) is not tuple:
            return 1
        arguments = get_args(self.hint)
        return None if arguments[-1] is ... else len(arguments)


@functools.cache
def flags_of(kind: type) -> tuple[Flag, ...]:
    """All flags of a command, in the order of its fields, with those that are `absent`."""
    return tuple(_flags(kind, (), ""))


def _flags(
    kind: type, place: tuple[str, ...], prefix: str, without: Sequence[Without] = ()
) -> Iterator[Flag]:
    hints = typing.get_type_hints(kind, include_extras=True)
    texts = field_texts(kind)
    for field in dataclasses.fields(kind):
        hint, marks = _unmarked(hints[field.name])
        hint, optional = _without_none(hint)
        here = (*place, field.name)
        if hint is OwnCode:
            yield from _flags_of_code(prefix, field.name, here, texts[field.name])
        elif dataclasses.is_dataclass(hint):
            inner = prefix if Role.UNPREFIXED in marks else f"{prefix}{field.name}."
            left_out = [mark for mark in marks if isinstance(mark, Without)]
            yield from _flags(typing.cast(type, hint), here, inner, left_out)
        else:
            yield Flag(
                path=prefix + field.name,
                place=here,
                hint=hint,
                optional=optional,
                positional=Role.POSITIONAL in marks,
                text=texts.get(field.name, ""),
                absent=next((w.reason for w in without if field.name in w.fields), ""),
            )


def _flags_of_code(prefix: str, name: str, place: tuple[str, ...], text: str) -> Iterator[Flag]:
    """The two flags of own code: `--head.own` is the function, `--head.settings` its settings."""
    part = prefix or f"{name.removeprefix('own_')}."
    code = Flag(
        path=f"{part}own", place=place, hint=OwnCode, optional=False, positional=False, text=text
    )
    settings = field_texts(OwnCode)["settings"]
    yield code
    yield dataclasses.replace(
        code, path=f"{part}settings", place=(*place, "settings"), hint=dict, text=settings
    )


def config_kind(kind: type, name: str) -> type:
    """The dataclass of a field that holds a config."""
    hint, _ = _unmarked(typing.get_type_hints(kind, include_extras=True)[name])
    return typing.cast(type, _without_none(hint)[0])


def _unmarked(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    if get_origin(hint) is typing.Annotated:
        return get_args(hint)[0], hint.__metadata__
    return hint, ()


def _without_none(hint: Any) -> tuple[Any, bool]:
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()
    if type(None) not in kinds:
        return hint, False
    return functools.reduce(operator.or_, (k for k in kinds if k is not type(None))), True


@functools.cache
def field_texts(kind: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, in one line."""
    body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef), "a dataclass"
    texts = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
    return texts


def choices(hint: Any) -> tuple[str, ...]:
    """The values that a type allows where it lists them; none where it does not."""
    if get_origin(hint) is Literal:
        return tuple(map(str, get_args(hint)))
    if get_origin(hint) in (tuple, Union, types.UnionType):
        return tuple(choice for kind in get_args(hint) for choice in choices(kind))
    return ()


def instead_of(path: str) -> tuple[str, ...]:
    """The settings whose value this one replaces: own code that of a name, and a name own code."""
    if path.endswith(".own"):
        part = path.removesuffix(".own")
        return part, f"{part}.name"
    return (f"{path.removesuffix('.name')}.own",)


def own_setting(name: str, text: str) -> tuple[str, Any]:
    """`width=64` as a name and a value, which is JSON or else a word."""
    setting, equals, value = text.partition("=")
    if not equals or not setting.isidentifier():
        raise UserError(f"{name} takes settings such as width=64; got {text!r}")
    try:
        return setting, json.loads(value)
    except ValueError:
        return setting, value


_SETTING = re.compile(r"(?<![\w./':,-])(?:--)?[a-z][a-z_-]*(?:\.[a-z][a-z_-]*)+")


def in_flags(message: str, flags: Iterable[Flag], words: Iterable[str]) -> str:
    """A message whose settings are named as on the command line: `data.limit` is `--limit`, or
    `--data.limit` where that was typed."""
    by_path = {flag.path: flag for flag in flags}
    typed = {word.partition("=")[0] for word in words}

    def renamed(found: re.Match[str]) -> str:
        path = found[0].removeprefix("--").replace("-", "_")
        flag = by_path.get(path) or by_path.get(path.removesuffix(".spec"))
        if flag is None:
            return found[0]
        return flag.long_name if flag.long_name in typed else flag.name

    return _SETTING.sub(renamed, message)
