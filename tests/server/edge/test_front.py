"""What every response has in common, whoever made it (contract 01 §1.1, §15, §16, §19)."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from molecule_ai.server.app import Server
from tests.conftest import ADMIN_TOKEN, MakeServer, connect
from tests.support import add_token, add_workspace, bearer

LISTED = "http://localhost:3000"
STRICT = "default-src 'self'"


@pytest.mark.settings(rate_limit=4)
async def test_security_headers_on_every_status(anonymous: httpx.AsyncClient) -> None:
    answers = [
        await anonymous.get("/health"),
        await anonymous.get("/workspaces"),
        await anonymous.get("/workspaces/nothing/here"),
        await anonymous.post("/org/identity"),
        await anonymous.get("/org/identity"),
        await anonymous.get("/org/identity"),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 404, 405, 200, 429]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
        assert answer.headers["referrer-policy"] == "strict-origin-when-cross-origin"
        assert answer.headers["permissions-policy"] == "camera=(), microphone=(), geolocation=()"
        assert answer.headers["content-security-policy"] == STRICT
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert answer.headers["x-request-id"]


async def test_pages_get_a_policy_that_runs_them_but_no_eval(anonymous: httpx.AsyncClient) -> None:
    for path in ("/docs", "/somewhere", "/workspacesx"):
        policy = (await anonymous.get(path)).headers["content-security-policy"]
        assert "script-src 'self' 'unsafe-inline'" in policy
        assert "unsafe-eval" not in policy


async def test_a_request_has_an_id_that_errors_repeat(anonymous: httpx.AsyncClient) -> None:
    given = await anonymous.get("/workspaces", headers={"x-request-id": "trace-1.2:3"})
    assert given.headers["x-request-id"] == "trace-1.2:3"
    assert given.json()["request_id"] == "trace-1.2:3"
    made = await anonymous.get("/workspaces", headers={"x-request-id": "no good\x7f"})
    assert re.fullmatch(r"[0-9a-f]{16}", made.headers["x-request-id"])
    assert made.json()["request_id"] == made.headers["x-request-id"]


async def test_head_is_served_wherever_get_is(server: Server, admin: httpx.AsyncClient) -> None:
    for path in ("/health", "/workspaces", f"/workspaces/{uuid4()}/activity"):
        got, head = await admin.get(path), await admin.head(path)
        assert head.status_code == got.status_code
        assert head.content == b""
        assert head.headers["content-length"] == got.headers["content-length"]
    assert (await admin.head("/org/import")).status_code == 405


async def test_of_two_authorizations_the_first_counts(anonymous: httpx.AsyncClient) -> None:
    good, bad = f"Bearer {ADMIN_TOKEN}", "Bearer nonsense"
    first = await anonymous.get("/org/tokens", headers=[("authorization", good), ("authorization", bad)])
    assert first.status_code == 200
    second = await anonymous.get("/org/tokens", headers=[("authorization", bad), ("authorization", good)])
    assert second.status_code == 401


async def test_unknown_paths_and_wrong_methods_are_json(anonymous: httpx.AsyncClient) -> None:
    unknown = await anonymous.get("/workspaces/a/b/c/d")
    assert (unknown.status_code, unknown.json()["error"]) == (404, "not found")
    wrong = await anonymous.put("/health")
    assert (wrong.status_code, wrong.json()["error"]) == (405, "method not allowed")
    assert wrong.headers["allow"]
    assert b'": ' not in unknown.content


async def test_both_spellings_of_a_path_are_served(anonymous: httpx.AsyncClient) -> None:
    assert (await anonymous.get("/health/")).status_code == 200
    assert (await anonymous.get("/buildinfo/")).status_code == 200


class TestCors:
    async def test_a_listed_origin_may_read(self, anonymous: httpx.AsyncClient) -> None:
        for path in ("/health", "/workspaces"):
            answer = await anonymous.get(path, headers={"origin": LISTED})
            assert answer.headers["access-control-allow-origin"] == LISTED
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert answer.headers["vary"] == "Origin"
            assert "X-RateLimit-Reset" in answer.headers["access-control-expose-headers"]

    async def test_a_preflight_of_a_listed_origin_is_answered(self, anonymous: httpx.AsyncClient) -> None:
        asked = {"origin": LISTED, "access-control-request-method": "PATCH"}
        answer = await anonymous.options(f"/workspaces/{uuid4()}", headers=asked)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == LISTED
        assert answer.headers["access-control-allow-methods"] == "GET,POST,PUT,PATCH,DELETE,OPTIONS"
        allowed = answer.headers["access-control-allow-headers"].split(",")
        for name in ("Authorization", "X-Workspace-Id", "X-Molecule-Org-Slug", "X-Confirm-Name", "If-Match"):
            assert name in allowed
        assert answer.headers["access-control-max-age"] == "600"
        assert len(answer.headers.get_list("vary")) == 3
        assert "x-ratelimit-limit" not in answer.headers

    async def test_another_origin_learns_nothing(self, anonymous: httpx.AsyncClient) -> None:
        evil = {"origin": "https://evil.example"}
        simple = await anonymous.get("/health", headers=evil)
        assert simple.status_code == 200
        assert "access-control-allow-origin" not in simple.headers
        preflight = await anonymous.options(
            "/health", headers={**evil, "access-control-request-method": "GET"}
        )
        assert preflight.status_code == 403
        assert "access-control-allow-origin" not in preflight.headers

    @pytest.mark.settings(cors_origins=" https://a.example , nonsense, https://b.example/")
    async def test_origins_are_listed_in_the_settings(self, anonymous: httpx.AsyncClient) -> None:
        for origin, is_listed in (("https://a.example", True), ("https://b.example", True), (LISTED, False)):
            answer = await anonymous.get("/health", headers={"origin": origin})
            assert ("access-control-allow-origin" in answer.headers) is is_listed


class TestRateLimit:
    @pytest.mark.settings(rate_limit=3)
    async def test_one_request_too_many(self, anonymous: httpx.AsyncClient) -> None:
        for left in (2, 1, 0):
            answer = await anonymous.get("/org/identity")
            assert answer.status_code == 200
            assert answer.headers["x-ratelimit-limit"] == "3"
            assert answer.headers["x-ratelimit-remaining"] == str(left)
            assert 1 <= int(answer.headers["x-ratelimit-reset"]) <= 60
        refused = await anonymous.get("/org/identity", headers={"x-forwarded-for": "10.1.2.3"})
        assert (refused.status_code, refused.json()["error"]) == (429, "rate limit exceeded")
        assert refused.json()["retry_after"] >= 1
        assert refused.headers["retry-after"] == str(refused.json()["retry_after"])
        assert refused.headers["x-ratelimit-remaining"] == "0"

    @pytest.mark.settings(rate_limit=2)
    async def test_each_credential_has_its_own_bucket(self, anonymous: httpx.AsyncClient) -> None:
        for token in ("one", "two"):
            statuses = [
                (await anonymous.get("/org/identity", headers=bearer(token))).status_code for _ in range(3)
            ]
            assert statuses == [200, 200, 429]

    @pytest.mark.settings(rate_limit=2)
    async def test_invented_credentials_do_not_evade_the_limit(self, server: Server) -> None:
        async def statuses(address: str) -> list[int]:
            transport = httpx.ASGITransport(app=server.app, client=(address, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://molecule.test") as client:
                return [
                    (await client.get("/org/identity", headers=bearer(f"{address}{n}"))).status_code
                    for n in range(25)
                ]

        assert await statuses("203.0.113.9") == [200] * 20 + [429] * 5
        # The agents of this machine share its address.
        assert await statuses("127.0.0.1") == [200] * 25

    @pytest.mark.settings(rate_limit=1)
    async def test_probes_are_not_counted(self, anonymous: httpx.AsyncClient) -> None:
        for path in ("/health", "/buildinfo", "/metrics") * 2:
            assert (await anonymous.get(path)).status_code == 200
        assert (await anonymous.get("/org/identity")).status_code == 200

    async def test_the_workers_of_a_server_count_together(self, make_server: MakeServer) -> None:
        one, two = await make_server(rate_limit=4), await make_server(rate_limit=4)
        async with connect(one) as first, connect(two) as second:
            statuses = [(await client.get("/org/identity")).status_code for client in (first, second) * 3]
        assert statuses == [200] * 4 + [429] * 2

    async def test_development_limits_nothing_unless_told_to(self, make_server: MakeServer) -> None:
        async with connect(await make_server(molecule_env="dev", rate_limit=0)) as client:
            assert (await client.get("/org/identity")).headers["x-ratelimit-limit"] == "unlimited"
        async with connect(await make_server(molecule_env="dev", rate_limit=5)) as client:
            assert (await client.get("/org/identity")).headers["x-ratelimit-limit"] == "5"
        async with connect(await make_server(rate_limit=0)) as client:
            assert (await client.get("/org/identity")).headers["x-ratelimit-limit"] == "600"


class TestTrustedProxies:
    @pytest.mark.settings(rate_limit=1, trusted_proxies="127.0.0.0/8, 10.0.0.0/8")
    async def test_the_right_most_stranger_is_the_client(self, anonymous: httpx.AsyncClient) -> None:
        async def ask(forwarded: str) -> int:
            headers = {"x-forwarded-for": forwarded}
            return (await anonymous.get("/org/identity", headers=headers)).status_code

        assert await ask("6.6.6.6, 203.0.113.7, 10.0.0.2") == 200
        assert await ask("7.7.7.7, 203.0.113.7") == 429
        assert await ask("203.0.113.8") == 200


class TestBodies:
    @pytest.mark.settings(max_body_bytes=2000)
    async def test_too_large_a_body_is_refused(self, server: Server, admin: httpx.AsyncClient) -> None:
        path = f"/workspaces/{await add_workspace(server)}/notify"
        body = b'{"message":"' + b"x" * 3000 + b'"}'

        async def chunks() -> Any:
            for start in range(0, len(body), 500):
                yield body[start : start + 500]

        for content in (body, chunks()):
            answer = await admin.post(path, content=content)
            assert (answer.status_code, answer.json()["error"]) == (413, "request body too large")
            assert answer.json()["limit_bytes"] == 2000
        assert (await admin.post(path, json={"message": "x"})).status_code == 200

    async def test_a_route_may_have_a_limit_of_its_own(
        self, server: Server, admin: httpx.AsyncClient
    ) -> None:
        path = f"/workspaces/{await add_workspace(server)}/activity"
        body = {"activity_type": "agent_log", "request_body": "x" * (1024 * 1024)}
        answer = await admin.post(path, json=body)
        assert (answer.status_code, answer.json()["limit_bytes"]) == (413, 1024 * 1024)

    async def test_headers_have_a_limit_too(self, anonymous: httpx.AsyncClient) -> None:
        answer = await anonymous.get("/health", headers={"x-filler": "x" * 40_000})
        assert (answer.status_code, answer.json()["error"]) == (431, "request headers too large")


@pytest.mark.settings(molecule_org_id="org-1", molecule_org_slug="Acme")
class TestTenantGuard:
    async def test_who_meant_another_organization_finds_nothing(self, anonymous: httpx.AsyncClient) -> None:
        for headers in (
            {},
            {"x-molecule-org-id": "org-2"},
            {"x-molecule-org-id": "org-2", "x-molecule-org-slug": "acme"},
            {"x-molecule-org-slug": "other"},
            {"fly-replay-src": "instance=1;state=org-2"},
            {"origin": "http://molecule.test"},
        ):
            answer = await anonymous.get("/workspaces", headers=headers)
            assert (answer.status_code, answer.content) == (404, b""), headers
            assert answer.headers["x-frame-options"] == "DENY"

    async def test_who_meant_this_one_is_let_through(self, anonymous: httpx.AsyncClient) -> None:
        for headers in (
            {"x-molecule-org-id": "org-1"},
            {"x-molecule-org-slug": "ACME"},
            {"fly-replay-src": "instance=1;state=org-1;t=2"},
        ):
            assert (await anonymous.get("/workspaces", headers=headers)).status_code == 401

    async def test_probes_and_machines_need_no_organization(self, anonymous: httpx.AsyncClient) -> None:
        for path in ("/health", "/metrics", "/buildinfo"):
            assert (await anonymous.get(path)).status_code == 200
        for path in ("/registry/register", "/registry/heartbeat"):
            assert (await anonymous.post(path, json={})).status_code != 404
        hidden = await anonymous.get("/health/x")
        assert (hidden.status_code, hidden.content) == (404, b"")
        assert (await anonymous.post("/registry/update-card", json={})).content == b""


async def test_a_bug_is_a_json_500_that_tells_nothing(server: Server) -> None:
    async def broken(_scope: Any, _receive: Any, _send: Any) -> None:
        raise RuntimeError("secret detail")

    server.app._app = broken  # type: ignore[attr-defined]
    async with connect(server) as client:
        answer = await client.get("/health")
    assert (answer.status_code, answer.json()["error"]) == (500, "internal server error")
    assert "secret" not in answer.text


async def test_a_workspace_token_is_no_way_around(server: Server, anonymous: httpx.AsyncClient) -> None:
    token = await add_token(server, await add_workspace(server))
    answer = await anonymous.get("/events", headers=bearer(token))
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_admin_token")


async def test_a_body_that_does_not_come_is_not_waited_for(
    anonymous: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("molecule_ai.server.edge.front._BODY_SECONDS", 0.05)

    async def stalled() -> AsyncIterator[bytes]:
        yield b'{"id":'
        await asyncio.Event().wait()

    late = await anonymous.post("/registry/check-access", content=stalled())
    assert (late.status_code, late.json()["error"]) == (408, "request body timed out")
    assert late.headers["x-request-id"]
