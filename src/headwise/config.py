"""Frozen dataclasses to and from JSON, strictly: an unknown key is an error with a suggestion."""

import dataclasses
import types
import typing
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from headwise.errors import UserError, nearest

Config = TypeVar("Config")


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON values (tuples become lists)."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def from_dict(cls: type[Config], values: Any, where: str = "config") -> Config:
    """A config from JSON values. Missing keys keep their defaults.

    Raises `UserError` for an unknown key (naming the nearest) and for a value of the wrong type.
    `where` names the source in messages.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where} must be an object of settings; got {values!r}")
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
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


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _member(kinds: list[Any], value: Any, where: str) -> Any:
    """The member of a union that the value is for. Several are dataclasses told apart by `name`."""
    if len(kinds) == 1 or not isinstance(value, dict):
        return kinds[0]
    by_name = {get_args(typing.get_type_hints(kind)["name"])[0]: kind for kind in kinds}
    name = str(value.get("name"))
    if name not in by_name:
        raise UserError(f"{where}.name cannot be {name!r}: {nearest(name, by_name)}")
    return by_name[name]


def _typed(hint: Any, value: Any, where: str) -> Any:
    """`value` as `hint` wants it: the few kinds that configs use, and no conversions but
    int to float and list to tuple."""
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
        return from_dict(typing.cast(type, hint), value, where)
    if origin is Literal:
        if value not in args:
            raise UserError(f"{where} cannot be {value!r}: {nearest(str(value), map(str, args))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where} must be a list; got {value!r}")
        kinds = [args[0]] * len(value) if args[1:] == (...,) else list(args)
        if len(kinds) != len(value):
            raise UserError(f"{where} must have {len(kinds)} values; got {value!r}")
        return tuple(_typed(kind, item, where) for kind, item in zip(kinds, value, strict=True))
    if hint is float and type(value) is int:
        return float(value)
    if origin is dict and isinstance(value, dict):
        return value
    if type(value) is not hint:
        raise UserError(f"{where} must be of type {hint.__name__}; got {value!r}")
    return value
