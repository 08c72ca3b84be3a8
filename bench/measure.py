"""Figures: percentiles, the machine they were taken on, and where they are kept."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds at p50, p95, p99 and the maximum."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    points = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "max": 1.0}
    last = len(ordered) - 1
    return {
        f"{name}_ms": round(ordered[min(last, int(q * len(ordered)))] * 1000, 3) for name, q in points.items()
    }


def machine() -> dict[str, Any]:
    """The size of this machine: a figure without it says nothing."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages / 2**30),
        "python": platform.python_version(),
        "load": "server, database, agents and load generator share the machine",
    }


def record(scenario: str, figures: Mapping[str, Any], *, target: str) -> Path:
    """Write `results/<scenario>.json`, replacing the previous run."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{scenario}.json"
    document = {
        "scenario": scenario,
        "target": target,
        "figures": dict(figures),
        "machine": machine(),
        "taken_at": datetime.now(UTC).date().isoformat(),
    }
    file.write_text(json.dumps(document, indent=2) + "\n")
    return file


def pss_mb(pid: int) -> float:
    """Proportional memory of a process in MB: shared pages are counted once among those who share them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
