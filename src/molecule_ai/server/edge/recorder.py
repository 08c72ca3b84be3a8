"""Counts of this worker, and of its siblings: what `GET /metrics` shows (contract 01 §18)."""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
from msgspec import Struct

from molecule_ai.kernel.http import route_pattern

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_MAX_KNOWN_PATHS = 1000
_LIMITERS = {"mint_limited": "mint"}  # of single routes, by the code of their refusal


class Requests(Struct):
    """Requests of one method, route and status."""

    count: int = 0
    seconds: float = 0.0


class Latency(Struct):
    """How long one method of a route took."""

    buckets: list[int]
    seconds: float = 0.0


class Snapshot(Struct):
    """Everything a worker counted. Keys are labels joined by spaces, which no label contains."""

    requests: dict[str, Requests]
    latencies: dict[str, Latency]
    counts: dict[str, int]
    gauges: dict[str, float]


class Recorder:
    """Counts requests in memory; a dictionary and a few additions per request."""

    def __init__(self) -> None:
        # How to name a request that was refused before it was routed; whoever has the routes sets it.
        self.template_of: Callable[[str, str], str] = lambda _path, _method: ""
        self._paths: dict[tuple[str, str], str] = {}
        self._labels: dict[str, str] = {}
        self._requests: dict[tuple[str, str, int], Requests] = {}
        self._latencies: dict[tuple[str, str], Latency] = {}
        self._counts: dict[tuple[str, ...], int] = {}

    def request(self, scope: Any, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        method = method if method in _METHODS else "OTHER"
        path = self._label(scope, method)
        key = (method, path, status)
        seen = self._requests.get(key)
        if seen is None:
            seen = self._requests[key] = Requests()
        seen.count += 1
        seen.seconds += seconds
        latency = self._latencies.get(key[:2])
        if latency is None:
            latency = self._latencies[key[:2]] = Latency([0] * (len(BUCKETS) + 1))
        latency.buckets[bisect_left(BUCKETS, seconds)] += 1
        latency.seconds += seconds
        if status in (401, 403):
            self._refusal(scope)
        elif status == 429 and scope.get("error_code") in _LIMITERS:
            self.count("molecule_rate_limited_total", _LIMITERS[scope["error_code"]])

    def count(self, name: str, *labels: str) -> None:
        """Count something else by its metric's name and label values."""
        key = (name, *(label.replace(" ", "_") for label in labels))
        self._counts[key] = self._counts.get(key, 0) + 1

    def snapshot(self, gauges: dict[str, float]) -> Snapshot:
        """What was counted so far, and how things stand."""
        return Snapshot(
            requests={f"{m} {p} {s}": value for (m, p, s), value in self._requests.items()},
            latencies={f"{m} {p}": value for (m, p), value in self._latencies.items()},
            counts={" ".join(key): value for key, value in self._counts.items()},
            gauges=gauges,
        )

    def _refusal(self, scope: Any) -> None:
        handler = scope.get("route_handler")
        tier = handler.opt.get("tier") if handler is not None else None
        self.count(
            "molecule_auth_failures_total",
            tier.name.lower() if tier is not None else "edge",
            str(scope.get("error_code") or "unknown"),
        )

    def _label(self, scope: Any, method: str) -> str:
        """The route's pattern as `/workspaces/:id`."""
        template = scope.get("path_template")
        if template is None:
            template = self._unrouted(scope["path"], method)
        label = self._labels.get(template)
        if label is None:
            label = self._labels[template] = route_pattern(template) or "unmatched"
        return label

    def _unrouted(self, path: str, method: str) -> str:
        """The template of a request that was answered before it was routed."""
        known = self._paths.get((method, path))
        if known is None:
            if len(self._paths) >= _MAX_KNOWN_PATHS:
                self._paths.clear()
            known = self._paths[method, path] = self.template_of(path, method)
        return known


class Siblings:
    """Exchanges snapshots between the workers of one server through files in a folder they share.

    A scrape reaches any one of them and shall see them all. What a dead worker counted stays, so that
    counters never go back while the server lives; its gauges do not.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parent = os.getppid()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Snapshot)

    def prepare(self) -> None:
        """Make the folder, and remove what servers before this one left."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            for file in (*self._folder.glob("*-*.metrics"), *self._folder.glob("*.limits")):
                server = file.stem.partition("-")[0]
                if server.isdecimal() and not psutil.pid_exists(int(server)):
                    file.unlink(missing_ok=True)

    def publish(self, snapshot: Snapshot) -> None:
        """Let the siblings see it."""
        file = self._folder / f"{self._parent}-{os.getpid()}.metrics"
        draft = file.with_suffix(".draft")
        with contextlib.suppress(OSError):
            draft.write_bytes(self._encoder.encode(snapshot))
            draft.replace(file)

    def others(self) -> list[Snapshot]:
        """The last word of every other worker of this server."""
        found = []
        for file in self._folder.glob(f"{self._parent}-*.metrics"):
            pid = int(file.stem.partition("-")[2])
            if pid == os.getpid():
                continue
            with contextlib.suppress(OSError, msgspec.DecodeError):
                snapshot = self._decoder.decode(file.read_bytes())
                found.append(
                    snapshot if psutil.pid_exists(pid) else msgspec.structs.replace(snapshot, gauges={})
                )
        return found


def merged(snapshots: list[Snapshot]) -> Snapshot:
    """The sum of all."""
    total = Snapshot({}, {}, {}, {})
    for snapshot in snapshots:
        for key, requests in snapshot.requests.items():
            sum_of = total.requests.setdefault(key, Requests())
            sum_of.count += requests.count
            sum_of.seconds += requests.seconds
        for key, latency in snapshot.latencies.items():
            so_far = total.latencies.setdefault(key, Latency([0] * len(latency.buckets)))
            so_far.buckets = [a + b for a, b in zip(so_far.buckets, latency.buckets, strict=True)]
            so_far.seconds += latency.seconds
        for key, count in snapshot.counts.items():
            total.counts[key] = total.counts.get(key, 0) + count
        for key, value in snapshot.gauges.items():
            total.gauges[key] = total.gauges.get(key, 0.0) + value
    return total
