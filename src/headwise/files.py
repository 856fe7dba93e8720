"""Atomic file writes: a reader sees the old content or the new content, never a part of it. And
the one reader of JSON."""

import contextlib
import csv
import errno
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from headwise.errors import UserError

Json = dict[str, Any]
"""A JSON object, where it is read or written. Elsewhere its values have types of their own."""


def write_atomically(path: Path, write: Callable[[Path], None], *, size: int | None = None) -> None:
    """Call `write(temporary)`, flush the result to the disk, and rename it to `path`.

    `write` may make a file or a directory. If it makes a directory, `path` must not exist or must
    be an empty directory. On any error the temporary is removed and `path` does not change. An
    `OSError` for a full disk names `path` and the space that it needs: `size` bytes, if given.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with full_disk_named(path, temporary, size):
            path.parent.mkdir(parents=True, exist_ok=True)
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


def plain_text(name: str) -> str:
    """A name in which bytes that are not UTF-8, as a file's name may have, are written as
    `\\udcff`: tables, pages and figures cannot hold them."""
    return name.encode(errors="backslashreplace").decode()


def safe_name(text: str) -> str:
    """A text as part of a file's name that every system takes."""
    return re.sub(r"[^\w.=+-]", "_", text, flags=re.ASCII)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically (`plain_text`)."""
    write_bytes(path, plain_text(text).encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    write_atomically(path, lambda temporary: _write(temporary, content), size=len(content))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically. Raises `ValueError` for NaN and infinities."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises `UserError` for a file that is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} must be JSON; {error}; the file is damaged") from None


def read_object(path: Path) -> Json:
    """The object in a JSON file. Raises `UserError` for anything else."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path} must hold a JSON object; got {type(found).__name__}")
    return found


def csv_text(columns: Iterable[str | int], rows: Iterable[Iterable[Any]]) -> str:
    """Return CSV with a header. A spreadsheet reads no cell of text as a formula (`plain_cell`)."""
    return "".join(csv_line(row) for row in (columns, *rows))


def csv_line(row: Iterable[Any]) -> str:
    """Return one line of CSV; cells as in `csv_text`."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([plain_cell(value) for value in row])
    return line.getvalue()


def plain_cell(value: Any) -> Any:
    """Return a cell with an apostrophe before text that a spreadsheet would take for a formula:
    text that begins with = + - @, a tab or a carriage return, and is not a number."""
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


@contextlib.contextmanager
def full_disk_named(path: Path, written: Path, size: int | None = None) -> Iterator[None]:
    """Within the block, an `OSError` for a full disk names `path` and the space that it needs: if
    `size` is not known, more than was `written`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        known = "" if size is not None else "more than "
        needed, free = size or _size(written), shutil.disk_usage(_existing(path)).free
        raise OSError(
            error.errno,
            f"{error.strerror}; it needs {known}{needed / 2**20:.1f} MiB, and "
            f"{free / 2**20:.1f} MiB are free",
            str(path),
        ) from error


def _size(path: Path) -> int:
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _existing(path: Path) -> Path:
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
