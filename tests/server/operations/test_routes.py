import httpx


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
