"""One writer for a directory, and no lock outlives its owner."""

import errno
import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headwise.errors import UserError
from headwise.report.pages.rendering import write_page
from headwise.runs import lock
from headwise.runs.lock import writing

HOLD = """
import sys, time
from pathlib import Path
from headwise.errors import UserError
from headwise.runs.lock import writing
try:
    with writing(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(float(sys.argv[2]))
except UserError as error:
    print(error, flush=True)
"""


def holder(path: Path, seconds: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HOLD, str(path), str(seconds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_another_process_waits_outside(tmp_path):
    with holder(tmp_path / "run", 60) as process:
        assert first_line(process) == "held"
        with (
            pytest.raises(UserError, match=rf"is being written .*\({process.pid} on .*\); wait"),
            writing(tmp_path / "run"),
        ):
            pass
        process.kill()
        process.wait()
        with writing(tmp_path / "run"):  # a dead owner's lock is taken over at once
            assert os.listdir(tmp_path / "run") == [".lock"]
    assert os.listdir(tmp_path / "run") == []


def test_the_same_process_may_enter_twice(tmp_path):
    with writing(tmp_path), writing(tmp_path / "." / "x" / ".."):
        with writing(tmp_path):
            pass
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("content", ["", "{", '["a"]', '{"host": "elsewhere", "pid": 1}'])
def test_a_lock_that_is_not_renewed_is_taken_over(tmp_path, content):
    path = tmp_path / ".lock"
    path.write_text(content)
    with pytest.raises(UserError, match="is being written"), writing(tmp_path):
        pass
    old = time.time() - lock.STALE_SECONDS - 1
    os.utime(path, (old, old))
    with writing(tmp_path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_another_process_of_the_same_number_does_not_hold_the_lock(tmp_path):
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": "1"}
    (tmp_path / ".lock").write_text(json.dumps(owner))
    with writing(tmp_path):
        pass


def test_a_lock_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_RENEW_SECONDS", 0.01)
    with writing(tmp_path):
        os.utime(tmp_path / ".lock", (1, 1))
        deadline = time.monotonic() + 5
        while (tmp_path / ".lock").stat().st_mtime < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_one_of_many_gets_a_stale_lock(tmp_path):
    owner = {"host": socket.gethostname(), "pid": 2**30, "started": "1"}
    (tmp_path / ".lock").write_text(json.dumps(owner))
    with ThreadPoolExecutor(4) as pool:
        processes = list(pool.map(lambda _: holder(tmp_path, 5), range(4)))
    lines = [first_line(process) for process in processes]
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert lines.count("held") == 1, lines


@pytest.mark.parametrize("name", ["figures", "checkpoints", "metrics.jsonl", ".lock", "a/b"])
def test_a_link_to_outside_is_refused_and_nothing_is_written_there(tmp_path, name):
    """Whatever a command writes, it writes within `writing`."""
    run, outside = tmp_path / "run", tmp_path / "outside"
    (run / name).parent.mkdir(parents=True)
    outside.mkdir()
    target = outside / "new" if "." in name else outside
    (run / name).symlink_to(target)
    with pytest.raises(UserError, match="is a link to") as error, writing(run):
        pytest.fail("it was followed")
    assert str(run / name) in str(error.value)
    assert not list(outside.iterdir())
    with pytest.raises(UserError, match="is a link to"):
        write_page(run, "", ())
    assert not list(outside.iterdir())


def test_links_within_a_run_and_a_run_behind_a_link(tmp_path):
    (tmp_path / "disk" / "run" / "figures").mkdir(parents=True)
    (tmp_path / "runs").symlink_to("disk")
    (tmp_path / "runs" / "run" / "newest").symlink_to("figures")
    with writing(tmp_path / "runs" / "run"):
        pass


def test_a_lock_without_an_owner_does_not_stay(tmp_path, monkeypatch):
    """A full disk, or a process that was killed before it wrote its name."""

    def full() -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lock, "_owner", full)
        with pytest.raises(OSError, match="No space"), writing(tmp_path):
            pass
    assert not (tmp_path / lock.LOCK_FILE).exists()
    (tmp_path / lock.LOCK_FILE).touch()
    with pytest.raises(UserError, match="unknown host"), writing(tmp_path):
        pass
    os.utime(tmp_path / lock.LOCK_FILE, (time.time() - 10,) * 2)
    with writing(tmp_path):
        pass


def test_a_directory_that_cannot_be_written_is_one_line_before_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "open", refused)
    message = "run must be writable.*; Read-only file system: copy"
    with pytest.raises(UserError, match=message), writing(tmp_path / "run"):
        raise AssertionError("it must not begin")
