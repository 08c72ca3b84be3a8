"""`GET /metrics`: what all workers of this server counted, and how things stand (contract 01 §18)."""

from __future__ import annotations

import asyncio
import hmac
import platform
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping

import psutil
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from molecule_ai.kernel.clock import Clock
from molecule_ai.kernel.engine import Supervisor
from molecule_ai.kernel.errors import DatastoreUnavailable, Unauthenticated
from molecule_ai.server.edge.recorder import BUCKETS, Recorder, Siblings, Snapshot, merged

CONTENT_TYPE = "text/plain; version=0.0.4"  # the framework adds the character set
_PUBLISH_SECONDS = 2.0
_STATUSES_SECONDS = 10.0  # how old the count of workspaces may be
_REQUEST = ("method", "path", "status")
_COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "molecule_auth_failures_total": ("Refused credentials.", ("tier", "reason")),
    "molecule_rate_limited_total": ("Requests over a limit.", ("limiter",)),
    "molecule_tenant_guard_rejections_total": ("Requests meant for another organization.", ()),
}
_GAUGES = {
    "molecule_websocket_connections_active": "Open WebSocket connections.",
    "molecule_event_streams_active": "Open event streams.",
    "molecule_db_pool_in_use": "Database connections in use.",
    "process_resident_memory_bytes": "Memory of all workers.",
    "process_open_fds": "Open files of all workers.",
    "asyncio_tasks": "Tasks of all workers.",
}

CountStatuses = Callable[[], Awaitable[Mapping[str, int]]]


class MetricsTokenRequired(Unauthenticated):
    """metrics token required"""

    code = "metrics_token_required"


class Metrics:
    """Collects and renders. Every worker publishes what it counts for its siblings to show."""

    def __init__(
        self,
        recorder: Recorder,
        siblings: Siblings,
        supervisor: Supervisor,
        clock: Clock,
        *,
        gauges: Callable[[], Mapping[str, float]],
        statuses: CountStatuses,
        token: str,
    ) -> None:
        self._recorder = recorder
        self._siblings = siblings
        self._supervisor = supervisor
        self._clock = clock
        self._gauges = gauges
        self._statuses = statuses
        self._token = token.strip().encode()
        self._counted: Mapping[str, int] = {}
        self._counted_at = -_STATUSES_SECONDS
        self._process = psutil.Process()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    async def run(self) -> None:
        """Publish until cancelled."""
        self._siblings.prepare()
        while True:
            self._siblings.publish(self._snapshot())
            await asyncio.sleep(_PUBLISH_SECONDS)

    async def render(self, bearer: str) -> bytes:
        """The text that Prometheus reads. Raises `MetricsTokenRequired`."""
        if self._token and not hmac.compare_digest(bearer.encode(), self._token):
            raise MetricsTokenRequired
        if time.monotonic() - self._counted_at > _STATUSES_SECONDS:
            try:
                self._counted = await self._statuses()
                self._counted_at = time.monotonic()
            except DatastoreUnavailable:
                self._counted = {}
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing in advance: the names are known only when there is something to show."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        total = merged([self._snapshot(), *self._siblings.others()])
        yield from _requests(total)
        yield from _counters(total)
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(name, text, value=total.gauges.get(name, 0.0))
        cpu = CounterMetricFamily("process_cpu_seconds", "CPU time of all workers.")
        cpu.add_metric([], total.gauges.get("process_cpu_seconds", 0.0))
        yield cpu
        yield GaugeMetricFamily(
            "process_start_time_seconds", "Start of this worker.", value=self._process.create_time()
        )
        python = GaugeMetricFamily("python_info", "Interpreter.", labels=["implementation", "version"])
        python.add_metric([platform.python_implementation(), platform.python_version()], 1)
        yield python
        workspaces = GaugeMetricFamily("molecule_workspaces", "Workspaces by status.", labels=["status"])
        for status, count in sorted(self._counted.items()):
            workspaces.add_metric([status], count)
        yield workspaces
        yield self._ticks()

    def _ticks(self) -> Metric:
        ticks = GaugeMetricFamily(
            "molecule_subsystem_last_tick_seconds",
            "Seconds since an engine of this worker completed its last round.",
            labels=["name"],
        )
        now = self._clock.now()
        for name, pulse in sorted(self._supervisor.pulses.items()):
            if pulse.last_tick_at is not None:
                ticks.add_metric([name], (now - pulse.last_tick_at).total_seconds())
        return ticks

    def _snapshot(self) -> Snapshot:
        with self._process.oneshot():
            times = self._process.cpu_times()
            own = {
                "process_resident_memory_bytes": float(self._process.memory_info().rss),
                "process_open_fds": float(self._process.num_fds()),
                "process_cpu_seconds": times.user + times.system,
                "asyncio_tasks": float(len(asyncio.all_tasks())),
            }
        return self._recorder.snapshot({**self._gauges(), **own})


def _requests(total: Snapshot) -> Iterator[Metric]:
    served = CounterMetricFamily("molecule_http_requests", "Requests served.", labels=_REQUEST)
    seconds = CounterMetricFamily(
        "molecule_http_request_duration_seconds_total", "Seconds spent on requests.", labels=_REQUEST
    )
    for key, requests in sorted(total.requests.items()):
        labels = key.split(" ")
        served.add_metric(labels, requests.count)
        seconds.add_metric(labels, requests.seconds)
    yield served
    yield seconds
    latency = HistogramMetricFamily(
        "molecule_http_request_duration_seconds", "Latency of requests.", labels=_REQUEST[:2]
    )
    for key, seen in sorted(total.latencies.items()):
        so_far, buckets = 0, []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), seen.buckets, strict=True):
            so_far += count
            buckets.append((bound, so_far))
        latency.add_metric(key.split(" "), buckets, seen.seconds)
    yield latency


def _counters(total: Snapshot) -> Iterator[Metric]:
    for name, (text, labels) in _COUNTERS.items():
        family = CounterMetricFamily(name, text, labels=labels)
        for key, count in sorted(total.counts.items()):
            metric, *values = key.split(" ")
            if metric == name:
                family.add_metric(values, count)
        if not labels and not family.samples:
            family.add_metric([], 0)
        yield family
