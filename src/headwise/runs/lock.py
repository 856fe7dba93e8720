"""One writer for a directory: a lock file that says who writes.

The file names host and process and is renewed while its owner lives. The lock of an owner that is
dead, or that has not renewed it for two minutes (it may be on another machine), is taken over.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from headwise.errors import UserError

LOCK_FILE = ".lock"
STALE_SECONDS = 120.0
_UNNAMED_SECONDS = 5.0  # an owner that was killed before it wrote its name never will

_RENEW_SECONDS = 20.0
_held: set[Path] = set()  # by this process: commands call each other


class Busy(UserError):
    """Another process writes into the directory."""


@contextlib.contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Be the only process that writes into a directory, which is made if it is missing.

    Raises `Busy` if another process writes into it, and `UserError` if it is read-only or a link in
    it leads outside: what is written would end up there. Calls within each other are one lock. In
    ranks after the first, which do not write, there is no lock.
    """
    path = directory.resolve() / LOCK_FILE
    if path in _held:
        yield
        return
    _refuse_links(directory)
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    _begin(path, directory)
    _held.add(path)
    ended = threading.Event()
    threading.Thread(target=_renew, args=(path, ended), name="lock", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        _held.discard(path)
        with contextlib.suppress(OSError):
            if path.read_text(encoding="utf-8") == _owner():
                path.unlink()


def _refuse_links(directory: Path) -> None:
    root = directory.resolve()
    for folder, folders, files in os.walk(directory):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise UserError(
                    f"{path} must not lead outside of {directory}, which a command would then "
                    f"write to; it is a link to {path.resolve()}; put a copy in its place"
                )


def _begin(path: Path, directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _take(path, directory)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise UserError(
            f"{directory} must be writable, as results are written there; {error.strerror}: "
            "copy it to a place where you can write"
        ) from error


def _take(path: Path, directory: Path) -> None:
    while True:
        try:
            with path.open("x", encoding="utf-8") as file:
                try:
                    file.write(_owner())
                    file.flush()
                except OSError:  # a full disk: a lock without an owner would stay
                    path.unlink()
                    raise
            return
        except FileExistsError:
            # It may be released before it is opened: then it is made again.
            with contextlib.suppress(FileNotFoundError):
                _take_over(path, directory)
                return


def _take_over(path: Path, directory: Path) -> None:
    """Replace the owner of a stale lock. Raises `UserError` for one that is not stale."""
    with path.open("r+", encoding="utf-8", errors="replace") as file:
        # Of several that find the same stale lock, the first one's name is there for the others.
        fcntl.flock(file, fcntl.LOCK_EX)
        if not os.path.samestat(path.stat(), os.fstat(file.fileno())):
            raise FileNotFoundError
        found = file.read()
        if not _stale(found, time.time() - os.fstat(file.fileno()).st_mtime):
            owner = _fields(found)
            raise Busy(
                f"{directory} is being written by another process "
                f"({owner.get('pid', 'unknown')} on {owner.get('host', 'an unknown host')}); "
                "wait until it has ended, or stop it"
            )
        file.seek(0)
        file.truncate()
        file.write(_owner())


def _stale(content: str, age_seconds: float) -> bool:
    owner = _fields(content)
    if owner.get("host") == socket.gethostname() and owner.get("started") != _started(owner["pid"]):
        return True
    return age_seconds > (STALE_SECONDS if owner else _UNNAMED_SECONDS)


def _owner() -> str:
    pid = os.getpid()
    return json.dumps({"host": socket.gethostname(), "pid": pid, "started": _started(pid)})


def _fields(content: str) -> dict[str, object]:
    """Empty while the owner has not written it yet."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("pid"), int) else {}


def _started(pid: object) -> str | None:
    """When a process of this machine started, so that a later one of its number is not taken for
    it; "alive" where the system does not tell; None if there is no such process."""
    try:
        os.kill(int(str(pid)), 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return "alive"


def _renew(path: Path, ended: threading.Event) -> None:
    while not ended.wait(_RENEW_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)
