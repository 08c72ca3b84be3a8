"""Load generators: `wrk` where it is installed, a closed loop of our own where each request has a body."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import Awaitable, Callable
from typing import Any

from .measure import percentiles

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


async def closed_loop(
    request: Callable[[int], Awaitable[None]], *, count: int, concurrency: int
) -> dict[str, Any]:
    """`count` calls of `request(i)`, `concurrency` at a time: rate, percentiles, failures."""
    latencies: list[float] = []
    failures = 0
    numbers = iter(range(count))

    async def worker() -> None:
        nonlocal failures
        for number in numbers:
            began = time.perf_counter()
            try:
                await request(number)
            except Exception:
                failures += 1
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    seconds = time.perf_counter() - began
    return {"per_second": round(count / seconds), "failures": failures, **percentiles(latencies)}


def has_wrk() -> bool:
    return shutil.which("wrk") is not None


async def wrk(
    url: str,
    *,
    seconds: int = 10,
    connections: int = 32,
    headers: dict[str, str] | None = None,
    script: str = "",
) -> dict[str, Any]:
    """Run `wrk` and read its report."""
    arguments = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    for name, value in (headers or {}).items():
        arguments += ["-H", f"{name}: {value}"]
    if script:
        arguments += ["-s", script]
    process = await asyncio.create_subprocess_exec(*arguments, url, stdout=asyncio.subprocess.PIPE)
    output = (await process.communicate())[0].decode()
    figures: dict[str, Any] = {"per_second": round(float(_find(r"Requests/sec:\s+([\d.]+)", output)))}
    for name in ("50", "90", "99"):
        text = _find(rf"{name}%\s+([\d.]+(?:us|ms|s|m))\s", output)
        unit = text.lstrip("0123456789.")
        figures[f"p{name}_ms"] = round(float(text.removesuffix(unit)) * _UNITS[unit], 3)
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    figures["failures"] = int(failed.group(1)) if failed else 0
    return figures


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"unexpected report of wrk:\n{text}")
    return found.group(1)
