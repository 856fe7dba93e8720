"""Several workers on one study: every cell is run once, on SQLite and on PostgreSQL."""

import collections
import contextlib
import multiprocessing
import os
import shutil
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from headwise.config import to_dict
from headwise.errors import UserError
from headwise.files import write_json
from headwise.pretraining.recipes import demo
from headwise.study import place, work
from headwise.study.design import Study, axis, cells
from headwise.study.place import (
    STUDY_FILE,
    Begun,
    Placed,
    mark_done,
    mark_failed,
    read_begun,
    state,
    write_plan,
)
from headwise.study.queue import Queue

POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), None)


def make_study(folder: Path, levels: int = 20, seeds: int = 5, storage: str = "") -> Path:
    """A study of so many cells that has begun; its cells are never really trained."""
    temperatures = [0.1 + i / 100 for i in range(levels)]
    study = Study(
        name="planted",
        asks="?",
        base=demo(),
        grids=((axis("temperature", "temperature", *temperatures),),),
        seeds=seeds,
    )
    begun = Begun(study=study, identity=folder.name, storage=storage, cells="cells")
    write_json(folder / STUDY_FILE, to_dict(begun))
    placed = [
        Placed(name=f"cell{i}", levels=one.levels, seed=one.config.seed, section="")
        for i, one in enumerate(cells(study))
    ]
    write_plan(folder, placed)
    Queue(folder, begun).fill([one.name for one in placed])
    return folder


def count_cells(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have workers write a line for each cell that they run, instead of training."""
    log = folder / "ran"

    def ran(study: object, config: object, path: Path, images: object) -> None:
        with log.open("a") as file:
            file.write(f"{path.name}\n")

    monkeypatch.setattr(work, "run_cell", ran)
    monkeypatch.setattr(work, "opener", lambda: lambda data: None)
    monkeypatch.setattr(place, "_POLL_SECONDS", 0.05)
    return log


def start(folder: Path, count: int) -> Sequence[multiprocessing.process.BaseProcess]:
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=work.work, args=(folder,), kwargs={"quiet": True})
        for _ in range(count)
    ]
    with warnings.catch_warnings():  # Python warns of threads; the children use none of theirs
        warnings.simplefilter("ignore", DeprecationWarning)
        for worker in workers:
            worker.start()
    return workers


def assert_each_once(log: Path, count: int) -> None:
    ran = collections.Counter(log.read_text().split())
    assert len(ran) == count
    assert set(ran.values()) == {1}


def test_four_workers_run_every_cell_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_study(tmp_path / "study", levels=int(os.environ.get("HEADWISE_CELLS", "8")))
    log = count_cells(folder, monkeypatch)
    for worker in start(folder, 4):
        worker.join(120)
        assert worker.exitcode == 0
    assert_each_once(log, len(state(folder).done))
    assert not state(folder).failed


def test_a_killed_worker_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had taken from the queue is run by another one."""
    folder = make_study(tmp_path / "study", levels=2, seeds=2)
    log, quick = count_cells(folder, monkeypatch), work.run_cell

    def slow(study: object, config: object, path: Path, images: object) -> None:
        (folder / "began").touch()
        time.sleep(60)

    monkeypatch.setattr(work, "run_cell", slow)
    (worker,) = start(folder, 1)
    while not (folder / "began").exists():
        time.sleep(0.02)
    worker.kill()
    worker.join()
    monkeypatch.setattr(work, "run_cell", quick)
    work.work(folder, quiet=True)
    assert_each_once(log, 4)
    assert len(state(folder).done) == 4


def test_a_lost_queue_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directories decide: without the database, and with one that says that all is done."""
    folder = make_study(tmp_path / "study", levels=2, seeds=2)
    log = count_cells(folder, monkeypatch)
    (folder / "queue.db").unlink()
    mark_done(folder, "cell0")
    work.work(folder, quiet=True)
    assert_each_once(log, 3)


def test_a_cell_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_study(tmp_path / "study", levels=2, seeds=2)
    log = count_cells(folder, monkeypatch)
    quick = work.run_cell

    def fails(study: Study, config: object, path: Path, images: object) -> None:
        if path.name == "cell1":
            raise UserError("it must work; it does\nnot")
        quick(study, config, path, images)  # type: ignore[arg-type]

    monkeypatch.setattr(work, "run_cell", fails)
    work.work(folder, quiet=True)
    assert state(folder).failed == {"cell1": "temperature 0.11, seed 0: it must work; it does not"}
    assert len(state(folder).done) == 3
    monkeypatch.setattr(work, "run_cell", quick)
    work.work(folder, quiet=True)
    assert len(state(folder).failed) == 1  # not again unless it is asked for
    work.work(folder, only=("cell1",), quiet=True)
    assert not state(folder).failed
    assert_each_once(log, 4)
    with pytest.raises(UserError, match="must be cells of the study; got cell9; did you mean"):
        work.work(folder, only=("cell9",), quiet=True)


def test_the_queue_follows_the_directories(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", levels=2, seeds=2)
    queue = Queue(folder, read_begun(folder))
    taken = queue.take()
    assert taken is not None
    mark_failed(folder, taken.name, "it failed")
    queue.ended(taken, done=False)
    queue.fill(["cell1", "cell2", taken.name])
    again = [name for name, _ in iter(queue.take, None)]
    assert sorted(again) == ["cell0", "cell1", "cell2", "cell3"]


def test_a_storage_that_does_not_answer_is_named(tmp_path: Path) -> None:
    for url in (
        "postgresql+psycopg://nobody:secret@127.0.0.1:1/none",
        "no-such-thing://x",
        "nonsense",
    ):
        with pytest.raises(UserError, match="--storage must be the address") as error:
            make_study(tmp_path / "study", storage=url)
        assert f"got {url.replace('secret', '…')}: " in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.skipif(POSTGRES is None, reason="PostgreSQL is not installed (Debian: postgresql)")
def test_two_workers_on_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server() as url:
        folder = make_study(tmp_path / "study", levels=8, storage=url)
        log = count_cells(folder, monkeypatch)
        for worker in start(folder, 2):
            worker.join(120)
            assert worker.exitcode == 0
        assert_each_once(log, 40)
    assert not (folder / "queue.db").exists()


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The address of a PostgreSQL server of the test's own."""
    assert POSTGRES is not None
    # It refuses to run as root, and its user must reach the folder.
    user = "postgres" if os.geteuid() == 0 else None
    home = Path(f"/tmp/headwise-postgres-{os.getpid()}")
    home.mkdir()
    if user:
        shutil.chown(home, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def call(*words: str) -> None:
        subprocess.run(words, user=user, cwd=home, check=True, capture_output=True)

    data, log = str(home / "data"), str(home / "log")
    try:
        call(str(POSTGRES / "initdb"), "-D", data, "-U", "headwise", "-A", "trust")
        options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off"
        call(str(POSTGRES / "pg_ctl"), "-D", data, "-l", log, "-o", options, "-w", "start")
        try:
            yield f"postgresql+psycopg://headwise@127.0.0.1:{port}/postgres"
        finally:
            call(str(POSTGRES / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)
