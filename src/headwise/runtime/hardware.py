"""Device, precision, threads and memory allocator, as they suit the machine."""

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

import torch
from threadpoolctl import threadpool_limits

from headwise.errors import UserError
from headwise.runtime import cgroup

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16"]
ResolvedDevice = Literal["cpu", "cuda", "mps"]
ResolvedPrecision = Literal["float32", "bfloat16"]

T = TypeVar("T")

# One core needs about a millisecond for this many multiplications.
_OPERATIONS_A_THREAD = 50_000_000


def resolve_device(device: Device) -> ResolvedDevice:
    """Return the device to use. `auto` takes a GPU if torch sees one."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    match device:
        case "auto":
            return "cuda" if cuda else "mps" if mps else "cpu"
        case "cuda" if not cuda:
            raise UserError("--device cuda needs an NVIDIA GPU that torch can see; got none")
        case "mps" if not mps:
            raise UserError("--device mps needs an Apple GPU that torch can see; got none")
    return device


def available(device: Device) -> Device:
    """Return the device, or `auto` if this machine does not have it."""
    try:
        return resolve_device(device)
    except UserError:
        return "auto"


def resolve_precision(precision: Precision, device: str) -> ResolvedPrecision:
    """Return the precision of encoder and head. `auto` takes bfloat16 if the hardware multiplies it
    faster than float32: NVIDIA GPUs since Ampere, CPUs with AMX or AVX512-BF16."""
    if precision != "auto":
        return precision
    if device == "cuda":
        fast = torch.cuda.get_device_capability() >= (8, 0)
    else:
        fast = device == "cpu" and bool({"amx_bf16", "avx512_bf16"} & cpu_flags())
    return "bfloat16" if fast else "float32"


def autocast(device: str, precision: str) -> torch.autocast:
    """Return an autocast context for `precision`. It is disabled for float32."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")


def usable_cores() -> int:
    """Return the number of cores that this process may keep busy: those that it may run on, at most
    what its container has a quota for, divided among the ranks of this machine."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if (quota := cgroup.cpu_quota()) is not None:
        cores = min(cores, max(1, round(quota)))
    return max(1, cores // _local_ranks())


def use_threads(threads: int | None) -> None:
    """Let torch and BLAS use this many threads. None: as many as OMP_NUM_THREADS says, or else at
    most `usable_cores`. torchrun sets OMP_NUM_THREADS to 1: then each rank uses its share."""
    if threads is not None and threads < 1:
        raise UserError(f"--threads must be at least 1; got {threads}")
    said = os.environ.get("OMP_NUM_THREADS")
    if threads is not None:
        threadpool_limits(threads, user_api="blas")
    elif said == "1" and _local_ranks() > 1:
        threads = usable_cores()
    elif said is None:
        threads = min(torch.get_num_threads(), usable_cores())
    if threads is not None:
        torch.set_num_threads(threads)


def _local_ranks() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextlib.contextmanager
def threads_for(operations: int) -> Iterator[None]:
    """Limit the threads of torch and BLAS within a block of many steps of `operations`
    multiplications, to as many as one step keeps busy. Threads wait for each other at every step,
    which is slow if another process uses a core (measured: 20 times, for a probe of 5,000 rows)."""
    before = torch.get_num_threads()
    threads = max(1, min(before, operations // _OPERATIONS_A_THREAD))
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def on_threads(function: Callable[[slice], T], slices: Sequence[slice]) -> list[T]:
    """Call the function for every slice, on as many threads as torch uses, and return what it
    returns, in their order; within the function, torch's operations use one thread. For a sequence
    of small operations this is faster than to spread each over all threads, which then wait for
    each other at every operation."""
    threads = torch.get_num_threads()
    if threads == 1 or len(slices) == 1:
        return [function(rows) for rows in slices]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, slices))
    finally:
        # `set_num_threads` in a pool thread also sets the default of threads started later.
        torch.set_num_threads(threads)


def cpu_flags() -> set[str]:
    """Return the processor's feature flags. The set is empty if the system does not list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory instead of returning it to the system.

    Training frees and allocates the same large activations at every step. By default the system
    maps each allocation again, page by page (measured: 1.1 to 2 times the training time). Call this
    before the large allocations. Returns whether it has an effect (only on Linux with glibc).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    m_trim_threshold, m_mmap_max = -1, -4
    libc = ctypes.CDLL("libc.so.6")
    return bool(libc.mallopt(m_mmap_max, 0)) and bool(libc.mallopt(m_trim_threshold, -1))
