"""What this process may take of the machine, memory and cores, and how to say so."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Memory that may still be allocated, in bytes: the machine's, or the control group's where that is less."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return min(free, _cgroup_bytes(free))


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cgroup_bytes(otherwise: int) -> int:
    for limit, usage, statistics, cache in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        try:
            figures = dict(line.split() for line in (_CGROUP / statistics).read_text().splitlines())
            used = int((_CGROUP / usage).read_text()) - int(figures.get(cache, 0))  # that cache is given back on demand
            return max(0, int((_CGROUP / limit).read_text()) - used)
        except (OSError, ValueError):
            continue
    return otherwise


def human_bytes(count: float) -> str:
    """`27.2 GB`, in powers of ten."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"
