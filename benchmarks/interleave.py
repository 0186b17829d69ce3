"""Time several things fairly on a shared machine: one run, taking turns (A B A B ...), ratios of
medians.

Ratios hold where absolute times do not: whatever slows the machine down slows neighbouring turns
alike.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def interleave(
    contestants: Mapping[str, Callable[[], Any]], rounds: int = 11, *, warmup: int = 1
) -> dict[str, Any]:
    """Run every contestant `rounds` times in turn, after `warmup` unmeasured turns.

    The order within a round rotates, so that nobody always runs after the same neighbour.

    Returns:
        {"rounds", "seconds": {name: median}, "quartiles": {name: [q1, q3]},
        "ratios": {name: median of it / median of the FIRST contestant}}: above 1 the first
            contestant is faster.
        "paired_ratios" is the median over rounds of the same quotient within a round, steadier when
        the load drifts; "cpu_seconds" and "cpu_ratios" are the same for processor time of all
        threads, which neighbours hardly change.
    """
    names = list(contestants)
    times: dict[str, list[float]] = {name: [] for name in names}
    cpu_times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warmup, rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            start, cpu_start = time.perf_counter(), time.process_time()
            contestants[name]()
            if turn >= 0:
                times[name].append(time.perf_counter() - start)
                cpu_times[name].append(time.process_time() - cpu_start)
    median = {name: statistics.median(values) for name, values in times.items()}
    cpu = {name: statistics.median(values) for name, values in cpu_times.items()}
    quartiles = {
        name: [round(q, 6) for q in statistics.quantiles(values, n=4)[::2]]
        if len(values) > 1
        else []
        for name, values in times.items()
    }
    paired = {
        name: statistics.median(b / a for a, b in zip(times[names[0]], times[name], strict=True))
        for name in names
    }
    return {
        "rounds": rounds,
        "seconds": {name: round(value, 6) for name, value in median.items()},
        "quartiles": quartiles,
        "ratios": {name: round(median[name] / median[names[0]], 3) for name in names},
        "paired_ratios": {name: round(value, 3) for name, value in paired.items()},
        "cpu_seconds": {name: round(value, 6) for name, value in cpu.items()},
        "cpu_ratios": {name: round(cpu[name] / max(cpu[names[0]], 1e-9), 3) for name in names},
    }


def machine(*packages: str) -> dict[str, Any]:
    """Describe where a measurement was made: processor, cores, load, and the versions of these
    packages."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next(
                (line.split(":", 1)[1].strip() for line in file if line.startswith("model name")),
                model,
            )
    except OSError:
        pass
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load_1min": load,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "python": platform.python_version(),
        "versions": versions,
    }
