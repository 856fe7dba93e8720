"""Atomic file writes: a reader sees the old content or the new content, never a part of it."""

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]
"""A JSON object, where it is read or written. Elsewhere its values have types of their own."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write(temporary)`, flush the result to the disk, and rename it to `path`.

    `write` may make a file or a directory. If it makes a directory, `path` must not exist or must
    be an empty directory. On any error the temporary is removed and `path` does not change.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        write(temporary)
        if temporary.is_dir():
            for child in temporary.iterdir():
                _fsync(child)
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically. Raises `ValueError` for NaN and infinities."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
