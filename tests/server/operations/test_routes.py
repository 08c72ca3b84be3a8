import httpx
import pytest

from tests.conftest import MakeServer, connect


async def test_health_is_compact_json_of_strings(anonymous: httpx.AsyncClient) -> None:
    answer = await anonymous.get("/health")
    assert answer.status_code == 200
    assert b'"status":"ok"' in answer.content
    assert answer.json()["database"] == "ok"


async def test_liveness_needs_an_admin(anonymous: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    refused = await anonymous.get("/admin/liveness")
    assert (refused.status_code, refused.json()["error"]) == (401, "admin auth required")
    wrong = await anonymous.get("/admin/liveness", headers={"authorization": "Bearer nonsense"})
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid admin auth token")
    assert (await admin.get("/admin/liveness")).status_code == 200


async def test_an_unknown_path_is_a_json_404(anonymous: httpx.AsyncClient) -> None:
    answer = await anonymous.get("/nothing-here")
    assert (answer.status_code, answer.json()["error"]) == (404, "not found")


async def test_a_wrong_method_names_the_right_ones(anonymous: httpx.AsyncClient) -> None:
    answer = await anonymous.post("/health")
    assert (answer.status_code, answer.json()["error"]) == (405, "method not allowed")
    assert "GET" in answer.headers["allow"]


async def test_the_api_browser_needs_no_other_host(anonymous: httpx.AsyncClient) -> None:
    page = await anonymous.get("/docs")
    assert page.status_code == 200
    assert "https://" not in page.text.replace("https://json-schema.org", "")
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "swagger-ui-standalone-preset.js"):
        assert f"/docs/assets/{name}" in page.text
        assert (await anonymous.get(f"/docs/assets/{name}")).status_code == 200
    assert (await anonymous.get("/docs/openapi.json")).json()["openapi"].startswith("3.1")


async def test_ready_tells_a_balancer_when_to_send_nothing(make_server: MakeServer) -> None:
    server = await make_server()
    async with connect(server) as client:
        assert (await client.get("/health", params={"ready": "1"})).status_code == 200
        server.leave()
        leaving = await client.get("/health", params={"ready": "1"})
        assert (leaving.status_code, leaving.json()["status"]) == (503, "unavailable")
        # Whoever only asks whether it lives is told so until the end.
        assert (await client.get("/health")).json()["status"] == "ok"
    lost = await make_server()
    await lost.db.close()
    async with connect(lost) as client:
        answer = await client.get("/health", params={"ready": "1"})
        assert (answer.status_code, answer.json()["database"]) == (503, "unreachable")
        shallow = await client.get("/health")
        assert (shallow.status_code, shallow.json()["database"]) == (200, "unreachable")
        assert (await client.get("/health", params={"ready": "perhaps"})).status_code == 400


@pytest.mark.settings(molecule_org_name="Acme", git_sha="a" * 40, built_at="2026-11-22T04:00:00Z")
async def test_the_build_and_the_organization_are_public(anonymous: httpx.AsyncClient) -> None:
    build = (await anonymous.get("/buildinfo")).json()
    assert (build["git_sha"], build["built_at"]) == ("a" * 40, "2026-11-22T04:00:00Z")
    assert set(build) == {"git_sha", "version", "built_at"}
    assert (await anonymous.get("/org/identity")).json() == {"name": "Acme"}


async def test_a_refusal_says_how_to_authenticate(anonymous: httpx.AsyncClient) -> None:
    nothing = await anonymous.get("/workspaces")
    assert nothing.headers["www-authenticate"] == 'Bearer realm="molecule"'
    wrong = await anonymous.get("/workspaces", headers={"authorization": "Bearer nonsense"})
    assert wrong.headers["www-authenticate"] == 'Bearer realm="molecule", error="invalid_token"'
