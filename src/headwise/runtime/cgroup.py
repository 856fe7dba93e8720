"""What limits a container: Linux control groups, version 2 or 1. Needs no torch."""

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def cpu_quota() -> float | None:
    """Return how many cores' time the container may use. None: as much as there is."""
    limit, _, period = _read("cpu.max").partition(" ")
    limit = limit or _read("cpu/cpu.cfs_quota_us")
    period = period or _read("cpu/cpu.cfs_period_us")
    return int(limit) / int(period) if limit.isdecimal() and period.isdecimal() else None


def memory_left() -> int | None:
    """Return how many bytes the container may still take. None: as many as there are."""
    limit = _read("memory.max") or _read("memory/memory.limit_in_bytes")
    used = _read("memory.current") or _read("memory/memory.usage_in_bytes")
    return int(limit) - int(used) if limit.isdecimal() and used.isdecimal() else None


def _read(name: str) -> str:
    path = ROOT / name
    return path.read_text().strip() if path.is_file() else ""
