"""Tools of the benchmarks: alternating timing, peak memory, tables, the machine in words."""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from pathlib import Path

import torch

from headwise.files import write_text
from headwise.runs import directory as runs
from headwise.runtime import hardware

MIB = 2**20


def data(name: str) -> Path | None:
    """A set of real images in $HEADWISE_DATA, or in ../shared/data beside the checkout; None if it
    is not there."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("HEADWISE_DATA") or beside) / name
    return path if path.exists() else None


def alternate(functions: Mapping[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """Median seconds of each function: a warm-up call each, then `rounds` calls in alternation, so
    that other work on the machine affects all functions equally."""

    def timed(function: Callable[[], object]) -> Callable[[], float]:
        return lambda: seconds(function)

    for function in functions.values():
        function()
    times = in_turn({name: timed(function) for name, function in functions.items()}, rounds)
    return {name: statistics.median(values) for name, values in times.items()}


def in_turn(functions: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """The values that each function returned, by round; each round starts with another function."""
    names = list(functions)
    values: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            values[name].append(functions[name]())
    return values


def seconds(function: Callable[[], object]) -> float:
    """Seconds of one call, including work queued on a GPU."""
    synchronise()
    start = time.perf_counter()
    function()
    synchronise()
    return time.perf_counter() - start


def synchronise() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def time_and_memory(
    prepare: Callable[[], Callable[[], object]], rounds: int = 3
) -> tuple[float, float]:
    """Median seconds of the work that `prepare()` returns, and its peak memory in MiB beyond the
    memory in use before (on the GPU if one is in use).

    Everything happens in a new process, so `prepare` must be picklable (a `partial` of a module's
    function). Raises `BrokenProcessPool` if the system ends that process because memory runs out.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_time_and_memory, prepare, rounds).result()


def _time_and_memory(
    prepare: Callable[[], Callable[[], object]], rounds: int
) -> tuple[float, float]:
    work = prepare()
    synchronise()
    on_gpu = torch.cuda.is_initialized()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        # Writing this resets the peak that Linux records.
        Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
    taken = statistics.median(seconds(work) for _ in range(rounds))
    peak = torch.cuda.max_memory_allocated() if on_gpu else resident("VmHWM")
    return taken, (peak - before) / MIB


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table. Numbers have three significant digits and are aligned to the right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: object) -> str:
    if not isinstance(value, float) or abs(value) >= 100:
        return f"{value:,.0f}" if isinstance(value, int | float) else str(value)
    return f"{value:#.3g}".removesuffix(".")


def machine() -> str:
    """Hardware, versions and commit, in words."""
    found = runs.environment("cpu")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    named = ("python", "torch", "torchvision", "timm", "pillow")
    versions = [f"{name} {found['versions'][name]}" for name in named]
    versions += [f"{name} {metadata.version(name)}" for name in ("lightly", "kornia")]
    dirty = " with changes" if found["dirty"] else ""
    return (
        f"{found['device_name']}, {hardware.usable_cores()} cores, {found['threads']} threads of "
        f"torch, {memory:.0f} GiB of memory; GPU: {gpu}; precision auto is "
        f"{hardware.resolve_precision('auto', hardware.resolve_device('auto'))}.\n"
        f"{', '.join(versions)}; headwise at commit {(found['commit'] or 'unknown')[:7]}{dirty}."
    )


def put_between(page: Path, begin: str, end: str, text: str) -> None:
    """Write text between two marks of a page; the rest stays. A page that is missing is made."""
    old = page.read_text(encoding="utf-8") if page.exists() else f"{begin}\n{end}\n"
    before, _, rest = old.partition(begin)
    write_text(page, f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")
