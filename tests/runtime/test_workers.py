"""Results come in order from processes that can die."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from headwise.errors import UserError
from headwise.runtime.workers import WorkerDied, in_workers


def squares(key: int) -> tuple[torch.Tensor, list[int]]:
    return torch.full((3, 4), key * key, dtype=torch.uint8), [key]


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("room", [1, 12, 1000])
def test_results_are_those_of_one_process_in_order(workers, room):
    """Also if there are more workers than keys, or less room than a result needs."""
    found = list(in_workers(squares, range(4), workers, ahead=2, room=room))
    assert [key for _, (key,) in found] == list(range(4))
    assert all(torch.equal(tensor, squares(key)[0]) for key, (tensor, _) in enumerate(found))


def test_results_stay_when_later_ones_take_their_memory():
    found = list(in_workers(squares, range(12), 2, ahead=2, room=12))
    assert all(int(tensor[0, 0]) == key * key for key, (tensor, _) in enumerate(found))


def test_an_error_of_the_user_is_one_line_and_no_worker_remains():
    def fail(key: int) -> tuple[int, int]:
        if key == 3:
            raise UserError("no image is readable")
        return key, os.getpid()

    results = in_workers(fail, range(9), 2, ahead=2, room=1)
    processes = {next(results)[1] for _ in range(3)}
    with pytest.raises(UserError, match=r"^no image is readable$"):
        next(results)
    assert len(processes) == 2
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_a_worker_that_is_killed_is_noticed_at_once():
    def read(key: int) -> int:
        time.sleep(0.01)
        return os.getpid()

    results = in_workers(read, range(10_000), 2, ahead=4, room=1)
    os.kill(next(results), signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(WorkerDied, match="was killed by SIGKILL, most often for lack of memory"):
        list(results)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_leave_signals_to_their_parent(number):
    results = in_workers(lambda key: os.getpid(), range(1000), 2, ahead=2, room=1)
    for process in [next(results), next(results)]:
        os.kill(process, number)
    time.sleep(0.05)
    assert len(list(results)) == 998


def test_workers_end_when_their_parent_is_killed():
    code = (
        "import os, time\n"
        "from headwise.runtime.workers import in_workers\n"
        "results = in_workers(lambda key: os.getpid(), range(1000), 3, ahead=2, room=1)\n"
        "print(*[next(results) for _ in range(3)], flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        processes = [int(word) for word in child.stdout.readline().split()]
        child.kill()
    deadline = time.monotonic() + 10
    while any(map(alive, processes)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process: int) -> bool:
    """Whether a process still runs; one that nobody has waited for does not."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_small_shared_memory_mount_is_enough():
    """1 MiB in /dev/shm, and 24 MiB of results ahead."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("needs the right to mount")
    code = (
        "import torch\n"
        "from headwise.runtime.workers import in_workers\n"
        "read = lambda key: torch.full((4, 2**20), key, dtype=torch.uint8)\n"
        "found = list(in_workers(read, range(6), 2, ahead=3, room=4 * 2**20))\n"
        "print([int(one[-1, -1]) for one in found])\n"
    )
    mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm || exit 77; exec "
    words = ["unshare", "-m", "sh", "-c", f'{mount} "$0" -c "$1"', sys.executable, code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    if done.returncode == 77 or done.stderr.startswith("unshare"):
        pytest.skip(f"cannot mount here: {done.stderr}")
    assert done.stdout == "[0, 1, 2, 3, 4, 5]\n", done.stderr
