"""What is passed on to a control plane and to a canvas, each a real server (contract 01 §17)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import httpx
import pytest

from molecule_ai.server.app import Server
from molecule_ai.server.edge.proxies import is_allowed
from molecule_ai.server.environment import read
from molecule_ai.server.settings import BadSetting
from tests.conftest import ADMIN_TOKEN, MakeServer, connect
from tests.support import add_token, add_workspace, bearer, serve
from tests.upstream import Upstream, upstream

FORBIDDEN = [
    "/cp",
    "/cp/",
    "/cp/auth",
    "/cp/auth/",
    "/cp/admin/orgs",
    "/cp/workspaces/x",
    "/cp/tenants/config",
    "/cp/internal/x",
    "/cp/orgsabc",
    "/cp/auth/../admin/orgs",
    "/cp/auth/./../admin/orgs",
    "/cp/auth/%2e%2e/admin/orgs",
    "/cp/auth/%2E%2E/admin/orgs",
    "/cp/auth/..%2fadmin/orgs",
    "/cp/auth/..\\admin",
    "/cp/auth/%5c..%5cadmin",
    "/cp/auth/%252e%252e/admin",
    "/cp/auth/..;/admin/orgs",
    "/cp/auth//admin",
    "/cp//admin",
    "/cp/orgs/../admin/orgs",
    "/%63p/admin/orgs",
]


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[Upstream]:
    async with upstream(tmp_path) as started:
        yield started


@pytest.fixture
async def server(make_server: MakeServer, far: Upstream) -> Server:
    return await make_server(cp_upstream_url=far.url, canvas_proxy_url=far.url, max_body_bytes=1000)


@pytest.mark.parametrize("path", FORBIDDEN)
def test_no_spelling_leads_past_the_allowlist(path: str) -> None:
    assert not is_allowed(path)


@pytest.mark.parametrize(
    "path",
    ["/cp/auth/me", "/cp/billing/portal", "/cp/legal/terms", "/cp/orgs", "/cp/orgs/acme/x", "/cp/templates"],
)
def test_what_a_canvas_asks_the_control_plane_is_allowed(path: str) -> None:
    assert is_allowed(path)


async def test_what_is_not_allowed_is_an_empty_404_and_never_leaves(dsn: str, far: Upstream) -> None:
    """Through a real server and a raw socket, because clients tidy paths up."""
    async with serve(dsn, workers=1, cp_upstream_url=far.url) as served:
        for path in FORBIDDEN:
            answer = await _raw(served.port, path)
            head, _, body = answer.partition(b"\r\n\r\n")
            status = head.split(b" ", 2)[1]
            assert status in (b"404", b"400"), (path, answer)
            assert status == b"400" or body == b"", (path, answer)
        assert far.asked() == []
        async with served.client() as client:
            assert (await client.get("/cp/orgs/acme")).status_code == 201
    assert [asked["path"] for asked in far.asked()] == ["/cp/orgs/acme"]


async def _raw(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    await writer.drain()
    answer = await reader.read()
    writer.close()
    return answer


async def test_a_request_reaches_the_control_plane_whole(anonymous: httpx.AsyncClient, far: Upstream) -> None:
    answer = await anonymous.post(
        "/cp/billing/checkout?plan=a%20b",
        content=b'{"x":1}',
        headers={
            "cookie": "mcp_session=s; theme=dark",
            "authorization": "Bearer somebody-elses",
            "x-forwarded-for": "1.2.3.4",
            "x-request-id": "trace-1",
        },
    )
    assert answer.status_code == 201
    assert answer.json()["body"] == '{"x":1}'
    assert answer.headers.get_list("set-cookie") == ["a=1; Path=/", "b=2; Path=/"]
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["x-request-id"] == "trace-1"
    (asked,) = far.asked()
    assert (asked["method"], asked["path"]) == ("POST", "/cp/billing/checkout?plan=a%20b")
    assert asked["headers"]["cookie"] == "mcp_session=s; theme=dark"
    assert asked["headers"]["authorization"] == "Bearer somebody-elses"
    assert asked["headers"]["host"] == far.url.removeprefix("http://")
    # What a client claims of itself counts from a trusted proxy alone.
    assert asked["headers"]["x-forwarded-for"] == "127.0.0.1"


async def test_no_credential_of_this_organization_travels(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient, far: Upstream
) -> None:
    workspace_id = await add_workspace(server)
    key = (await admin.post("/org/tokens")).json()["auth_token"]
    scoped = await admin.post(f"/workspaces/{workspace_id}/tokens", json={"scopes": ["mcp:read"]})
    own = [ADMIN_TOKEN, key, await add_token(server, workspace_id), scoped.json()["auth_token"]]
    for token in own:
        assert (await anonymous.get("/cp/auth/me", headers=bearer(token))).status_code == 201
    assert ["authorization" in asked["headers"] for asked in far.asked()] == [False] * len(own)


async def test_an_absent_upstream_is_a_502_in_words(anonymous: httpx.AsyncClient, far: Upstream) -> None:
    await far.stop()
    for path, text in (("/cp/auth/me", "control plane unavailable"), ("/", "canvas unavailable")):
        answer = await anonymous.get(path)
        assert (answer.status_code, answer.text) == (502, text)
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_body_over_the_limit_is_not_passed_on(anonymous: httpx.AsyncClient, far: Upstream) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    for content in (b"x" * 1001, endless()):
        answer = await anonymous.post("/cp/billing/checkout", content=content)
        assert (answer.status_code, answer.json()["error"]) == (413, "request body too large")


async def test_pages_come_from_the_canvas_without_anybodys_credentials(
    anonymous: httpx.AsyncClient, far: Upstream
) -> None:
    for path in ("/", "/does-not-exist", "/workspacesx"):
        answer = await anonymous.get(path, headers={**bearer(ADMIN_TOKEN), "cookie": "mcp_session=s"})
        assert (answer.status_code, answer.text) == (200, "<html>canvas</html>")
        assert "unsafe-eval" not in answer.headers["content-security-policy"]
    for asked in far.asked():
        assert not {"authorization", "cookie"} & set(asked["headers"])


async def test_the_canvass_own_policy_is_the_only_one(anonymous: httpx.AsyncClient) -> None:
    answer = await anonymous.get("/nonce")
    assert answer.headers.get_list("content-security-policy") == ["script-src 'nonce-x'"]


async def test_the_api_never_becomes_a_page(anonymous: httpx.AsyncClient, far: Upstream) -> None:
    for path in ("/workspaces/a/b/c/d", "/canvas/nothing", "/instructions/x/y/z", "/ws/none"):
        answer = await anonymous.get(path)
        assert (answer.status_code, answer.json()["error"]) == (404, "not found")
    assert (await anonymous.put("/health")).status_code == 405
    assert (await anonymous.get("/docs")).status_code == 200
    assert far.asked() == []


async def test_without_upstreams_there_is_nothing_to_pass_on(make_server: MakeServer) -> None:
    async with connect(await make_server()) as client:
        for path in ("/cp/auth/me", "/", "/page"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["error"]) == (404, "not found")


async def test_sockets_and_streams_pass_and_end_with_their_client(dsn: str, far: Upstream) -> None:
    async with (
        serve(dsn, workers=1, canvas_proxy_url=far.url) as served,
        aiohttp.ClientSession(served.url) as client,
    ):
        async with client.ws_connect("/_next/hmr?page=1", protocols=("hmr",)) as socket:
            assert socket.protocol == "hmr"
            await socket.send_str("hello")
            assert await socket.receive_str(timeout=10) == "echo hello"
            await socket.send_bytes(b"\x00\xff")
            assert await socket.receive_bytes(timeout=10) == b"\x00\xff"
        async with client.get("/stream") as stream:
            assert await stream.content.readline() == b"data: one\n"
        # What a canvas cannot open is refused before the upgrade.
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect("/no-socket")
        assert refused.value.status == 502
    assert [asked["path"] for asked in far.asked()] == ["/_next/hmr?page=1", "/stream", "/no-socket"]


async def test_the_metrics_know_the_way_by_its_pattern(anonymous: httpx.AsyncClient) -> None:
    await anonymous.get("/cp/auth/me")
    await anonymous.get("/cp/admin/x")
    text = (await anonymous.get("/metrics")).text
    assert 'path="/cp/*path",status="201"' in text
    assert 'path="/cp/*path",status="404"' in text


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://", "/path", "http://[bad"])
@pytest.mark.parametrize("name", ["CP_UPSTREAM_URL", "CANVAS_PROXY_URL"])
def test_an_upstream_that_is_no_url_stops_the_boot(name: str, url: str) -> None:
    with pytest.raises(BadSetting, match=name):
        read({name: url})
