"""What the machine is good at: device, precision, memory allocator; each with an off switch."""

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import torch
from threadpoolctl import threadpool_limits

from headwise.errors import UserError

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16"]


# About a millisecond of one core's work.
_OPERATIONS_A_THREAD = 50_000_000


def resolve_device(device: Device) -> Literal["cpu", "cuda", "mps"]:
    """The device to use; `auto` takes a GPU where there is one."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    match device:
        case "auto":
            return "cuda" if cuda else "mps" if mps else "cpu"
        case "cuda" if not cuda:
            raise UserError("--device cuda needs an NVIDIA GPU that torch can see; got none")
        case "mps" if not mps:
            raise UserError("--device mps needs an Apple GPU that torch can see; got none")
    return device


def resolve_precision(precision: Precision, device: str) -> Literal["float32", "bfloat16"]:
    """The precision of the encoder and head; `auto` takes bfloat16 where the hardware multiplies
    it faster than float32: NVIDIA GPUs since Ampere, CPUs with AMX or AVX512-BF16."""
    if precision != "auto":
        return precision
    if device == "cuda":
        fast = torch.cuda.get_device_capability() >= (8, 0)
    else:
        fast = device == "cpu" and bool({"amx_bf16", "avx512_bf16"} & cpu_flags())
    return "bfloat16" if fast else "float32"


def autocast(device: str, precision: str) -> torch.autocast:
    """Autocast to `precision`; nothing for float32."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")


def usable_cores() -> int:
    """Cores that this process may run on."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def threads_for(operations: int) -> Iterator[None]:
    """Run a block of many small steps of so many multiplications each on no more threads than
    they can keep busy: threads that wait for each other at every step are slow where another
    process wants a core (measured: twenty times, for a probe of 5,000 rows). Holds for torch and
    for the BLAS behind NumPy and SciPy."""
    before = torch.get_num_threads()
    threads = max(1, min(before, operations // _OPERATIONS_A_THREAD))
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def on_threads(function: Callable[[slice], None], slices: Sequence[slice]) -> None:
    """Call the function for every slice, on as many threads as torch uses, where torch's own
    operations take one thread each.

    Small operations in a row are faster this way than each spread over all threads, which then
    wait for one another; the more so where another process wants a core.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(slices) == 1:
        for rows in slices:
            function(rows)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(function, slices))
    finally:
        # A thread's setting is also the default of threads to come.
        torch.set_num_threads(threads)


def cpu_flags() -> set[str]:
    """The processor's feature flags; empty where the system does not list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory instead of giving it back to the system.

    Training frees and allocates the same large activations every step; by default each allocation
    is mapped anew and faults in page by page (measured: 1.1 to 2 times the training time). Must
    run before the large allocations. Returns whether it applies here (Linux with glibc).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    m_trim_threshold, m_mmap_max = -1, -4
    libc = ctypes.CDLL("libc.so.6")
    return bool(libc.mallopt(m_mmap_max, 0)) and bool(libc.mallopt(m_trim_threshold, -1))
