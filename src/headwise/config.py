"""Frozen dataclasses to and from JSON, strictly: an unknown key is an error with a suggestion. And
the one check that a field holds what its annotation allows."""

import contextlib
import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from headwise.errors import UserError, nearest

Config = TypeVar("Config")


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON values (tuples become lists)."""
    return {name: _plain(getattr(config, name)) for name in _hints(type(config))}


def from_dict(cls: type[Config], values: Any, where: str = "config") -> Config:
    """A config from JSON values. Missing keys keep their defaults.

    Raises `UserError` for an unknown key (naming the nearest) and for a value of the wrong type.
    `where` names the source in messages.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where} must be an object of settings; got {_shown(values)}")
    hints = _hints(cls)
    names = list(hints)
    for key in values:
        if key not in names:
            raise UserError(f"{where} has an unknown key {key!r}: {nearest(key, names)}")
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        bare = field.default is field.default_factory is dataclasses.MISSING
        if bare and field.name not in values:
            raise UserError(f"{where} must have a key {field.name!r}; it has none")
    return cls(**{key: _typed(hints[key], v, f"{where}.{key}") for key, v in values.items()})


def resolved_as(kind: type[Config], config: object, decided: dict[str, Any]) -> Config:
    """The resolved form of a config: its settings, with these values for what it leaves open."""
    return kind(**{**vars(config), **decided})


def leaves(kind: type) -> dict[str, Any]:
    """The type of every setting, by its path: `head.width`."""
    found: dict[str, Any] = {}
    for name, hint in _hints(kind).items():
        inner = leaves(hint) if dataclasses.is_dataclass(hint) else None
        found |= {f"{name}.{path}": h for path, h in (inner or {}).items()}
        found |= {} if inner else {name: hint}
    return found


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `to_dict`, by path."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = flat(value) if isinstance(value, dict) else {"": value}
        found |= {f"{name}.{path}".rstrip("."): leaf for path, leaf in inner.items()}
    return found


def with_texts(config: Config, texts: Mapping[str, str]) -> Config:
    """The config with these settings, by path, each read from text as the type of its field wants
    it: several values have spaces between. Raises `UserError` as `with_values`."""
    hints = leaves(type(config))
    values = {p: _from_text(hints[p], text) if p in hints else text for p, text in texts.items()}
    return with_values(config, values)


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with these settings, by path. Raises `UserError` as `from_dict`."""
    hints, changes = leaves(type(config)), {}
    for path, value in values.items():
        if path not in hints:
            group = [n for n in hints if n.rpartition(".")[0] == path.rpartition(".")[0]]
            raise UserError(f"no setting {path!r}; {nearest(path, group or hints)}")
        changes[tuple(path.split("."))] = _typed(hints[path], value, path)
    return laid_over(config, changes)


def laid_over(config: Config, changes: Mapping[tuple[str, ...], object]) -> Config:
    """A config with the values at these places replaced."""
    values = {place[0]: value for place, value in changes.items() if len(place) == 1}
    for name in dict.fromkeys(place[0] for place in changes if len(place) > 1):
        inner = {place[1:]: value for place, value in changes.items() if place[0] == name}
        values[name] = laid_over(vars(config)[name], inner)
    return dataclasses.replace(typing.cast(Any, config), **values)


def _from_text(hint: Any, text: str) -> Any:
    """The value that a text says; the text where it says none of this type."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    if text in words:
        return text
    if types.NoneType in kinds and text.lower() == "none":
        return None
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (kind for kind in (int, float) if kind in kinds):
        with contextlib.suppress(ValueError):
            return number(text)
    for kind in (kind for kind in kinds if get_origin(kind) is tuple):
        return [_from_text(get_args(kind)[0], word) for word in text.split()]
    return text


def check_fields(config: Any) -> None:
    """Raise `UserError` for a field that holds what its annotation does not allow. Every config
    calls this first when it is made, so that nothing begins with a wrong one. Values are converted
    as `_typed` says."""
    for name, hint in _hints(type(config)).items():
        given = getattr(config, name)
        value = _typed(hint, given, f"{type(config).__name__}.{name}")
        if value is not given:
            object.__setattr__(config, name, value)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """The types of the fields of a config. Those that are not compared are not stored either."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.compare}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _member(kinds: list[Any], value: Any, where: str) -> Any:
    """The member of a union that the value is for. Several are words, or dataclasses told apart by
    `name`."""
    if all(get_origin(kind) is Literal for kind in kinds):
        words: Any = Literal
        return words[tuple(word for kind in kinds for word in get_args(kind))]
    if len(kinds) == 1 or not isinstance(value, dict):
        return type(value) if type(value) in kinds else kinds[0]
    by_name = {get_args(typing.get_type_hints(kind)["name"])[0]: kind for kind in kinds}
    name = str(value.get("name"))
    if name not in by_name:
        raise UserError(f"{where}.name cannot be {name!r}: {nearest(name, by_name)}")
    return by_name[name]


def _typed(hint: Any, value: Any, where: str) -> Any:
    """`value` as `hint` wants it: the few kinds that configs use, and no conversions but
    int to float, list to tuple, and between path and str."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is typing.Annotated:
        return _typed(args[0], value, where)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _typed(
            _member([arg for arg in args if arg is not type(None)], value, where), value, where
        )
    if dataclasses.is_dataclass(hint):
        kind = typing.cast(type, hint)
        return value if isinstance(value, kind) else from_dict(kind, value, where)
    if origin is Literal:
        if value not in args:
            raise UserError(
                f"{where} cannot be {_shown(value)}: {nearest(str(value), map(str, args))}"
            )
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where} must be a list; got {_shown(value)}")
        kinds = [args[0]] * len(value) if args[1:] == (...,) else list(args)
        if len(kinds) != len(value):
            raise UserError(f"{where} must have {len(kinds)} values; got {value!r}")
        return tuple(_typed(kind, item, where) for kind, item in zip(kinds, value, strict=True))
    if hint is float and type(value) is int:
        return float(value)
    if (hint, type(value)) == (Path, str) or (hint is str and isinstance(value, Path)):
        return hint(value)
    if origin is dict and isinstance(value, dict):
        return value
    if not isinstance(value, hint) or (type(value) is bool and hint is not bool):
        raise UserError(f"{where} must be of type {hint.__name__}; got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A wrong value in a line: it may be a table of numbers."""
    line = " ".join(repr(value).split())
    return line if len(line) <= 80 else line[:79] + "…"
