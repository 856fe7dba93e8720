"""Code of the user's own: where a function comes from, and the only place that executes a file.

A run records the file, the function, the digest of the source and the settings, and keeps a copy of
the file. Reading a run executes nothing: its parts have no function until the user hands it over
again or allows the run's copy.
"""

import copy
import functools
import hashlib
import inspect
import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from headwise.config import check_fields
from headwise.errors import UserError, nearest

Part = Literal["head", "encoder", "objective", "augment"]

_ARGUMENTS: dict[Part, str] = {
    "head": "head",
    "encoder": "encoder",
    "objective": "loss",
    "augment": "augment",
}
"""What hands each part over in Python. On the command line it is the flag of the part's name."""


@dataclass(frozen=True, kw_only=True)
class OwnCode:
    """A function of the user's own, or a module (docs/own.md)."""

    file: str | None = None
    """The file that holds the function. None: no file does, or it is not at the file's top
    level."""
    function: str
    """The name of the function in its file, or else the import path of the function or class."""
    sha256: str | None = None
    """The digest of the file, or else of the source of the function or class. None: not known."""
    settings: dict[str, Any] = field(default_factory=dict, hash=False)
    """Settings of your own function, as name=value: width=64 layers='[64, 32]'."""
    code: Callable[..., Any] | None = field(default=None, compare=False, repr=False)
    """What was handed over. None: the run only describes it."""
    source: bytes | None = field(default=None, compare=False, repr=False)
    """The content of the file."""

    def __post_init__(self) -> None:
        check_fields(self)
        try:
            settings = json.loads(json.dumps(self.settings, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise UserError(
                f"the settings of {self.words} must be numbers, words and lists, which JSON can "
                f"hold; {error}"
            ) from None
        object.__setattr__(self, "settings", settings)

    @property
    def words(self) -> str:
        """What it is called in messages: FILE:function."""
        return self.function if self.file is None else f"{self.file}:{self.function}"

    @property
    def name(self) -> str:
        """The same without folders."""
        return self.function if self.file is None else f"{Path(self.file).name}:{self.function}"

    def built(self, part: Part, *arguments: Any) -> Any:
        """The module that a function makes, or a copy of the one that was handed over."""
        from torch import nn

        if isinstance(self.code, nn.Module):
            return copy.deepcopy(self.code)
        return self.called(part, *arguments)

    def called(self, part: Part, *arguments: Any) -> Any:
        """What the function returns for these arguments and its settings.

        Raises `UserError` if it was not handed over, has no such settings, or fails.
        """
        if self.code is None:
            raise UserError(self.wanted(part))
        try:
            return self.code(*arguments, **self.settings)
        except UserError:
            raise
        except Exception as error:  # the user's code raises what it likes
            self._refuse_settings(part, arguments)
            raise self.failed(part, error) from error

    def failed(self, part: Part, error: BaseException) -> UserError:
        """The error for code of the user's that raised one."""
        return UserError(f"the {part} {self.words} must run; it raised {_line(error)}")

    def handed_over(self, given: "OwnCode", part: Part) -> "OwnCode":
        """This record with the code that was handed over again. Raises `UserError` if it is not the
        code that was recorded."""
        same = self.function.rpartition(".")[2] == given.function.rpartition(".")[2]
        known = None not in (self.sha256, given.sha256)
        if not same or (known and self.sha256 != given.sha256):
            differs = "another function" if not same else "its source has changed"
            advice = f"; --allow-code takes the run's copy of {self.name}" if self.file else ""
            raise UserError(
                f"the {part} must be the code that the run was made with, {self.words}; "
                f"got {given.words}: {differs}{advice}"
            )
        if given.settings not in ({}, self.settings):
            raise UserError(
                f"the {part} must have the settings of its run, {self.settings}; "
                f"got {given.settings}; leave them out"
            )
        return replace(self, code=given.code, source=given.source)

    def continued(self, recorded: "OwnCode | None") -> "OwnCode":
        """This code, with the settings of a record of the same code."""
        if recorded is None or self.sha256 is None:
            return self
        same = (self.sha256, self.function) == (recorded.sha256, recorded.function)
        return replace(recorded, code=self.code, source=self.source) if same else self

    def from_copy(self, path: Path, part: Part) -> "OwnCode":
        """This record with the code in the run's copy of the file. Raises `UserError` if that is
        not the file that was recorded."""
        if self.file is None or not path.is_file():
            raise UserError(f"the run has no copy of the {part}'s code; {self.wanted(part)}")
        source = path.read_bytes()
        if _digest(source) != self.sha256:
            raise UserError(
                f"{path} must be the file that the run recorded; its SHA-256 is another one, and "
                "it is not executed; put the right copy back, or hand the code over"
            )
        return replace(self, code=_function(path, source, self.function), source=source)

    def wanted(self, part: Part) -> str:
        """Whose code is needed, and how to give it."""
        name = _ARGUMENTS[part]
        if self.file is None:
            return (
                f"the {part} is code of its own, {self.words}, which must be handed over again: in "
                f"Python, open_run(RUN, {name}=…)"
            )
        return (
            f"the {part} is code of its own, which must be handed over again: "
            f"--{part} {self.words} (in Python, open_run(RUN, {name}=…)); or allow the run's copy "
            "of it, if you trust it: --allow-code"
        )

    def _refuse_settings(self, part: Part, arguments: tuple[Any, ...]) -> None:
        """Raise `UserError` if the function does not take these arguments and settings."""
        assert self.code is not None, "it was called"
        try:
            signature = inspect.signature(self.code)
        except (TypeError, ValueError):
            return
        try:
            signature.bind(*arguments, **self.settings)
        except TypeError as error:
            names = list(signature.parameters)[len(arguments) :]
            unknown = [name for name in self.settings if name not in names]
            if unknown:
                near = nearest(unknown[0], names) if names else "it has none"
                raise UserError(
                    f"{part}.settings: {self.words} has no setting {unknown[0]!r}: {near}"
                ) from None
            raise UserError(
                f"the {part} {self.words} must take {len(arguments)} arguments and its settings; "
                f"{error}"
            ) from None


@dataclass(frozen=True, kw_only=True)
class Handed:
    """The code that a user hands over with a run."""

    head: OwnCode | None = None
    encoder: OwnCode | None = None
    objective: OwnCode | None = None
    augment: OwnCode | None = None
    allow_code: bool = False
    """Whether the run's copies may be executed."""


Own = OwnCode | str | Path | Callable[..., Any]
"""A function or a module, the words FILE:function, or what `own` returns."""


def own(given: Own, /, **settings: Any) -> OwnCode:
    """A function or module of the user's with its settings, as `pretrain` and `open_run` take it.

    `given`: the function or module itself, or the words FILE:function, whose file is then executed.
    Raises `UserError` for a file that cannot be imported and a function that is not in it.
    """
    if isinstance(given, functools.partial):
        return own(given.func, **given.keywords, **settings)
    if isinstance(given, OwnCode):
        return replace(given, settings={**given.settings, **settings})
    if isinstance(given, str | Path):
        return replace(_from_words(str(given)), settings=settings)
    if not callable(given):
        raise UserError(
            "own code must be a function, a module or the words FILE:function; "
            f"got {type(given).__name__}"
        )
    return replace(_from_object(given), settings=settings)


def names_code(words: str) -> bool:
    """Whether these words are meant as FILE:function."""
    return words.endswith(".py") or ".py:" in words


def _from_words(words: str) -> OwnCode:
    file, _, function = words.rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        raise UserError(f"own code must be named as FILE:function; got {words!r}")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"own code must be in a file; {file} does not exist")
    source = path.read_bytes()
    return OwnCode(
        file=file,
        function=function,
        sha256=_digest(source),
        code=_function(path, source, function),
        source=source,
    )


def _from_object(given: Callable[..., Any]) -> OwnCode:
    """The record of a function, a class, or an object of a class."""
    named: Any = given if inspect.isroutine(given) or inspect.isclass(given) else type(given)
    module = sys.modules.get(named.__module__)
    top = vars(module).get(named.__name__) if module is not None else None
    try:
        file = inspect.getsourcefile(named)
    except TypeError:
        file = None
    if top is given and file is not None and Path(file).is_file():
        source = Path(file).read_bytes()
        return OwnCode(
            file=file, function=named.__name__, sha256=_digest(source), code=given, source=source
        )
    try:
        digest = _digest(inspect.getsource(named).encode())
    except (OSError, TypeError):
        digest = None
    path = f"{named.__module__}.{named.__qualname__}"
    return OwnCode(function=path, sha256=digest, code=given)


def _function(path: Path, source: bytes, name: str) -> Callable[..., Any]:
    """A function of a file, which is executed once in a process."""
    module = _executed(path, source)
    found = vars(module).get(name)
    if not callable(found):
        names = [
            key
            for key, value in vars(module).items()
            if callable(value) and value.__module__ == module.__name__
        ]
        choices = nearest(name, names) if names else "it has none"
        raise UserError(f"{path} must have a function {name!r} at its top level: {choices}")
    return found


def _executed(path: Path, source: bytes) -> types.ModuleType:
    name = f"{path.stem}_{_digest(source)[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    module = types.ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # what the file defines must find its module
    try:
        exec(compile(source, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(
            f"{path} must be a Python file that can be imported; it raised {_line(error)}"
        ) from error
    return module


def _digest(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
