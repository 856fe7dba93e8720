"""A file is the old one or the new one, never a part of it."""

import errno
import math
import os
from pathlib import Path

import pytest

from headwise.files import read_json, write_atomically, write_json, write_text


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(os.listdir(folder))


def test_a_file_is_written_whole_and_replaced(tmp_path):
    path = tmp_path / "new" / "deep" / "file.txt"
    write_text(path, "τ = 0.5\n")
    assert path.read_bytes() == "τ = 0.5\n".encode()
    write_text(path, "")
    assert path.read_bytes() == b""
    assert names(path.parent) == ["file.txt"]


def test_readers_see_the_old_content_until_the_new_is_complete(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def write(temporary: Path) -> None:
        assert temporary.parent == path.parent  # a rename must stay on one file system
        temporary.write_text("n")
        assert path.read_text() == "old"
        temporary.write_text("new")

    write_atomically(path, write)
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), ValueError()]
)
def test_a_writer_that_fails_leaves_the_old_content_and_no_temporary(tmp_path, error):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_directory_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "checkpoint"

    def write(temporary: Path, *, fail: bool) -> None:
        temporary.mkdir()
        (temporary / "one").write_text("1")
        if fail:
            raise OSError(errno.ENOSPC, "full")
        (temporary / "two").write_text("2")

    with pytest.raises(OSError, match="full"):
        write_atomically(path, lambda temporary: write(temporary, fail=True))
    assert names(tmp_path) == []
    write_atomically(path, lambda temporary: write(temporary, fail=False))
    assert names(path) == ["one", "two"]
    # It never takes the place of a directory that holds something.
    with pytest.raises(OSError, match="not empty"):
        write_atomically(path, lambda temporary: write(temporary, fail=False))
    assert names(tmp_path) == ["checkpoint"]
    assert names(path) == ["one", "two"]


def test_json_refuses_what_json_has_not(tmp_path):
    path = tmp_path / "values.json"
    values = {"b": [1, 0.1, None, True], "a": {"τ": 1e-300}}
    write_json(path, values)
    assert read_json(path) == values
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="JSON"):
            write_json(path, {"loss": bad})
    assert read_json(path) == values
    assert names(tmp_path) == ["values.json"]
