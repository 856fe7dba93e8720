"""`headwise doctor`: what this machine and its installation are like, and what to do about it.

Everything that can fail is imported inside the checks, so that a broken installation is reported
and not run into.
"""

import os
import platform
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

from headwise.cli.terminal import say
from headwise.cli.words import CommandLine, Given

GIB = 2**30
_LITTLE_MEMORY, _LITTLE_DISK = 2 * GIB, 5 * GIB

_SET_UP = "run `make setup`, or: uv pip install --upgrade torch torchvision timm"
_TOGETHER = (
    "torch and torchvision are builds that do not belong together (often a CPU-only torch beside "
    "the registry's torchvision); install both in one go: run `make setup`, or: "
    "uv pip install --reinstall torch torchvision"
)


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool | None
    """Whether it is as it must be; None: a note, nothing depends on it."""
    text: str
    """What was found."""
    advice: str = ""
    """What to do; "" where nothing is to be done."""


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Check this installation, and say what to do about what is wrong. Exits with 1 if something
    essential is wrong."""


def run(given: Given[Doctor]) -> None:
    checks = diagnose()
    say(report(checks))
    if not healthy(checks):
        raise SystemExit(1)


LINE = CommandLine(kind=Doctor, example="headwise doctor", usual="", run=run)


def diagnose() -> list[Check]:
    """All checks. None of them raises."""
    checks = [_checked("python", _python), _checked("versions", _versions), *_libraries()]
    rest: list[tuple[str, Callable[[], Check]]] = [
        ("device", _device),
        ("augmentation", _augmentation),
        ("cores", _cores),
        ("memory", _memory),
        ("cache", _cache),
        ("disk", _disk),
    ]
    return checks + [_checked(name, check) for name, check in rest]


def healthy(checks: list[Check]) -> bool:
    """Whether everything is as it must be."""
    return all(check.ok is not False for check in checks)


def report(checks: list[Check]) -> str:
    """The checks as lines of text, the advice below each, and a verdict."""
    marks = {True: "ok", False: "FAIL", None: "note"}
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{marks[check.ok]:<5}{check.name:<{width}}  {check.text}")
        if check.advice:
            lines.append(f"{'':<{5 + width}}  -> {check.advice}")
    failed = [check.name for check in checks if check.ok is False]
    verdict = f"to be mended: {', '.join(failed)}" if failed else "headwise can run here"
    return "\n".join([*lines, verdict])


def _checked(name: str, check: Callable[[], Check]) -> Check:
    """A check that cannot be made is a note: what it needs has a check of its own."""
    try:
        return check()
    except Exception as error:
        return Check(name, None, f"could not be looked at: {_line(error)}")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _python() -> Check:
    from packaging.specifiers import SpecifierSet

    wanted, found = metadata.metadata("headwise")["Requires-Python"], platform.python_version()
    ok = SpecifierSet(wanted).contains(found, prereleases=True)
    advice = "" if ok else f"make the environment with a Python that is {wanted}"
    return Check("python", ok, f"{found} on {platform.system()} {platform.machine()}", advice)


def _versions() -> Check:
    """The installed packages against the ranges that headwise asks for."""
    from packaging.requirements import Requirement

    wrong, count = [], 0
    for line in metadata.requires("headwise") or ():
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            found = None
        if found is None or not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name}{wanted.specifier} (found {found or 'none'})")
    if wrong:
        return Check("versions", False, f"must be {', '.join(wrong)}", _SET_UP)
    return Check("versions", True, f"all {count} required packages are in range")


def _libraries() -> Iterator[Check]:
    """torch, torchvision, timm: each needs those before it, so the first that fails ends it."""
    for name in ("torch", "torchvision", "timm"):
        try:
            module = import_module(name)
        except Exception as error:
            said = _line(error)
            yield Check(name, False, said, _TOGETHER if "torchvision::" in said else _SET_UP)
            return
        yield Check(name, True, str(module.__version__))


def _device() -> Check:
    import torch

    from headwise.runtime.hardware import cpu_flags, resolve_device, resolve_precision

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        device = resolve_device("auto")
    precision = resolve_precision("auto", device)
    if device == "cuda":
        return Check("device", None, f"{_gpus()}; precision auto is {precision}")
    fast = sorted({"amx_bf16", "avx512_bf16"} & cpu_flags())
    text = f"{device}; precision auto is {precision}" + (f" ({', '.join(fast)})" if fast else "")
    advice = str(said[0].message).splitlines()[0] if said else ""
    if not advice and Path("/proc/driver/nvidia").exists():
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "has no CUDA"
        advice = f"there is an NVIDIA driver, but this torch ({torch.__version__}) {built}"
    return Check("device", None, text, advice)


def _augmentation() -> Check:
    from headwise.augment.views_in_c import library

    if library() is not None:
        return Check("augmentation", None, "compiled C on CPUs")
    advice = "faster with a C compiler: install one, then headwise anew"
    return Check("augmentation", None, "torch alone, the C code was not compiled", advice)


def _gpus() -> str:
    import torch

    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return ", ".join(
        f"{gpu.name} (capability {gpu.major}.{gpu.minor}, {gpu.total_memory / GIB:.0f} GiB)"
        for gpu in found
    )


def _cores() -> Check:
    import torch

    from headwise.runtime import hardware

    cores, threads = hardware.usable_cores(), torch.get_num_threads()
    advice = ""
    if threads > cores:
        advice = f"more threads than cores wait for each other: set OMP_NUM_THREADS={cores}"
    elif threads < cores // 2:
        advice = f"torch leaves cores idle: unset OMP_NUM_THREADS, or set it to {cores}"
    return Check("cores", None, f"{cores} for this process, {threads} threads of torch", advice)


def _memory() -> Check:
    from headwise.runtime import cgroup

    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = {line.partition(":")[0]: line.split()[1] for line in lines}
    free = int(fields["MemAvailable"]) * 1024
    if (left := cgroup.memory_left()) is not None:
        free = min(free, left)
    advice = ""
    if free < _LITTLE_MEMORY:
        advice = "little: try a smaller --batch-size, or --data.resident-mib 0"
    return Check("memory", None, f"{free / GIB:.1f} GiB free", advice)


def _cache() -> Check:
    from headwise.data.cache import folder

    path = folder()
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    there = next(place for place in (path, *path.parents) if place.exists())
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    text = f"{path}: {size / GIB:.1f} GiB" + ("" if writable else ", not writable")
    advice = "" if writable else "images are decoded anew each time: set HEADWISE_CACHE"
    return Check("cache", None, text, advice)


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    advice = "little: checkpoints may not fit" if free < _LITTLE_DISK else ""
    return Check("disk", None, f"{free / GIB:.1f} GiB free in {Path.cwd()}", advice)
