import asyncio
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from molecule_ai.server.app import Server
from molecule_ai.server.edge.recorder import Recorder, Requests, Siblings, Snapshot, merged
from tests.conftest import ADMIN_TOKEN, MakeServer
from tests.support import add_workspace, bearer, serve, wait_for


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def read(client: httpx.AsyncClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return samples(answer.text)


def requests(path: str, status: int, method: str = "GET") -> tuple[str, tuple[tuple[str, str], ...]]:
    labels = (("method", method), ("path", path), ("status", str(status)))
    return "molecule_http_requests_total", labels


@pytest.mark.settings(rate_limit=8)
async def test_requests_are_counted_by_pattern(server: Server, anonymous: httpx.AsyncClient) -> None:
    for _ in range(2):
        await anonymous.get(f"/workspaces/{uuid4()}/tokens", headers=bearer(ADMIN_TOKEN))
    await anonymous.delete(f"/workspaces/{uuid4()}/tokens/{uuid4()}")
    await anonymous.get("/nowhere/at/all")
    for _ in range(8):
        await anonymous.get("/org/identity")
    seen = await read(anonymous)
    assert seen[requests("/workspaces/:id/tokens", 404)] == 2
    assert seen[requests("/workspaces/:id/tokens/:tokenId", 401, "DELETE")] == 1
    assert seen[requests("unmatched", 404)] == 1
    assert seen[requests("/org/identity", 429)] == 2
    assert seen[("molecule_rate_limited_total", (("limiter", "global"),))] == 2
    refused = (("reason", "missing_workspace_token"), ("tier", "workspace"))
    assert seen[("molecule_auth_failures_total", refused)] == 1
    assert seen[("molecule_tenant_guard_rejections_total", ())] == 0


async def test_how_things_stand(server: Server, anonymous: httpx.AsyncClient) -> None:
    await add_workspace(server, status="paused")
    await anonymous.get("/health")
    seen = await read(anonymous)
    names = {name for name, _ in seen}
    assert seen[("molecule_workspaces", (("status", "paused"),))] == 1
    assert seen[("molecule_websocket_connections_active", ())] == 0
    assert seen[("process_resident_memory_bytes", ())] > 1e6
    for name in (
        "molecule_http_request_duration_seconds_total",
        "molecule_http_request_duration_seconds_bucket",
        "molecule_db_pool_in_use",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_start_time_seconds",
        "python_info",
        "asyncio_tasks",
    ):
        assert name in names
    in_all = (("le", "+Inf"), ("method", "GET"), ("path", "/health"))
    assert seen[("molecule_http_request_duration_seconds_bucket", in_all)] == 1


@pytest.mark.settings(metrics_token="scrape-me")
async def test_metrics_may_want_a_token(anonymous: httpx.AsyncClient) -> None:
    refused = await anonymous.get("/metrics")
    assert (refused.status_code, refused.json()["error"]) == (401, "metrics token required")
    assert (await anonymous.get("/metrics", headers=bearer("wrong"))).status_code == 401
    assert (await anonymous.get("/metrics", headers=bearer("scrape-me"))).status_code == 200


async def test_engines_show_their_last_tick(make_server: MakeServer) -> None:
    server = await make_server(engines=True)
    await wait_for(lambda: any(pulse.last_tick_at for pulse in server.supervisor.pulses.values()))
    text = (await server.metrics.render("")).decode()
    assert "molecule_subsystem_last_tick_seconds{name=" in text


async def test_a_scrape_shows_all_workers(dsn: str) -> None:
    async with serve(dsn, workers=2) as served:

        async def ask() -> None:
            async with served.client() as client:
                await client.get("/org/identity")

        await asyncio.gather(*(ask() for _ in range(40)))

        async def all_are_seen() -> bool:
            async with served.client() as client:
                return (await read(client)).get(requests("/org/identity", 200)) == 40

        await wait_for(all_are_seen, 40, interval=0.2)


def test_what_a_dead_worker_counted_stays(tmp_path: Path) -> None:
    ours = Siblings(tmp_path)
    ours.prepare()
    parent = ours._parent
    dead = Snapshot(
        {"GET /x 200": Requests(3, 0.5)}, {}, {"molecule_rate_limited_total global": 2}, {"g": 9.0}
    )
    Siblings.publish(ours, dead)
    (tmp_path / f"{parent}-{2**22 - 1}.metrics").write_bytes(next(tmp_path.glob("*.metrics")).read_bytes())
    total = merged([Recorder().snapshot({"g": 1.0}), *ours.others()])
    assert total.requests["GET /x 200"].count == 3
    assert total.counts == {"molecule_rate_limited_total global": 2}
    assert total.gauges == {"g": 1.0}
