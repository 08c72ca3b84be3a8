from uuid import UUID, uuid4

import httpx

from molecule_ai.server.app import Server
from tests.support import add_token, add_workspace, bearer


async def tree(server: Server) -> dict[str, UUID]:
    head = await add_workspace(server, "head", url="http://localhost:1")
    left = await add_workspace(server, "left", parent_id=head, url="http://localhost:2", role="Research")
    right = await add_workspace(server, "right", parent_id=head, status="offline")
    leaf = await add_workspace(server, "leaf", parent_id=left, url="http://localhost:3")
    return {"head": head, "left": left, "right": right, "leaf": leaf}


async def test_peers_are_siblings_then_children_then_parent(server: Server, admin: httpx.AsyncClient) -> None:
    ids = await tree(server)
    found = (await admin.get(f"/registry/{ids['left']}/peers")).json()
    assert [peer["name"] for peer in found] == ["right", "leaf", "head"]
    assert found[1]["agent_card"] is None
    assert found[1]["url"] == "http://localhost:3"
    narrowed = (await admin.get(f"/registry/{ids['head']}/peers", params={"q": " RESEARCH "})).json()
    assert [peer["name"] for peer in narrowed] == ["left"]
    reachable = (await admin.get(f"/registry/{ids['head']}/peers", params={"scope": "reachable"})).json()
    assert [peer["name"] for peer in reachable] == ["left", "right", "leaf"]


async def test_peers_need_a_credential_of_the_workspace(server: Server, anonymous: httpx.AsyncClient) -> None:
    ids = await tree(server)
    own, foreign = await add_token(server, ids["left"]), await add_token(server, ids["leaf"])
    path = f"/registry/{ids['left']}/peers"
    assert (await anonymous.get(path)).status_code == 401
    assert (await anonymous.get(path, headers=bearer(foreign))).status_code == 401
    assert (await anonymous.get(path, headers=bearer(own))).status_code == 200
    assert (await anonymous.get("/registry/nonsense/peers", headers=bearer(own))).status_code == 400


async def test_an_unknown_workspace_has_no_peers(admin: httpx.AsyncClient) -> None:
    missing = await admin.get(f"/registry/{uuid4()}/peers")
    assert (missing.status_code, missing.json()["error"]) == (404, "workspace not found")


async def test_discovery_follows_the_tree(server: Server, anonymous: httpx.AsyncClient) -> None:
    ids = await tree(server)
    token = await add_token(server, ids["leaf"])

    async def discover(target: UUID, **headers: str) -> httpx.Response:
        return await anonymous.get(f"/registry/discover/{target}", headers=bearer(token) | headers)

    me = {"X-Workspace-ID": str(ids["leaf"])}
    found = await discover(ids["head"], **me)
    assert found.json() == {"id": str(ids["head"]), "url": "http://localhost:1", "name": "head"}
    refused = await discover(ids["right"], **me)
    assert (refused.status_code, refused.json()["error"]) == (
        403,
        "not authorized to discover this workspace",
    )
    assert (await discover(uuid4(), **me)).status_code == 404
    nameless = await discover(ids["head"])
    assert (nameless.status_code, nameless.json()["error"]) == (400, "X-Workspace-ID header is required")


async def test_a_workspace_that_is_not_up_cannot_be_found(server: Server, admin: httpx.AsyncClient) -> None:
    ids = await tree(server)
    headers = {"X-Workspace-ID": str(ids["left"])}
    away = await admin.get(f"/registry/discover/{ids['right']}", headers=headers)
    assert (away.status_code, away.json()["status"]) == (503, "offline")


async def test_a_poll_workspace_is_reached_through_the_platform(
    server: Server, admin: httpx.AsyncClient
) -> None:
    one = await add_workspace(server)
    polled = await add_workspace(server, delivery_mode="poll", runtime="external", desired="none")
    found = await admin.get(f"/registry/discover/{polled}", headers={"X-Workspace-ID": str(one)})
    assert found.json()["delivery_mode"] == "poll"
    assert found.json()["url"].endswith(f"/workspaces/{polled}/a2a")


async def test_a_replaced_workspace_leads_to_its_successor(server: Server, admin: httpx.AsyncClient) -> None:
    one = await add_workspace(server)
    new = await add_workspace(server, url="http://localhost:9")
    old = await add_workspace(server, forwarded_to=new)
    found = await admin.get(f"/registry/discover/{old}", headers={"X-Workspace-ID": str(one)})
    assert found.json()["id"] == str(new)


async def test_an_unsafe_stored_url_is_not_handed_out(server: Server, admin: httpx.AsyncClient) -> None:
    one, bad = await add_workspace(server), await add_workspace(server, url="http://169.254.1.1")
    found = await admin.get(f"/registry/discover/{bad}", headers={"X-Workspace-ID": str(one)})
    assert (found.status_code, found.json()["error"]) == (503, "workspace URL failed safety check")


async def test_the_rule_can_be_asked(server: Server, anonymous: httpx.AsyncClient) -> None:
    ids = await tree(server)

    async def allowed(caller: object, target: object) -> bool:
        answer = await anonymous.post(
            "/registry/check-access", json={"caller_id": str(caller), "target_id": str(target)}
        )
        assert answer.status_code == 200
        verdict: bool = answer.json()["allowed"]
        return verdict

    assert await allowed(ids["leaf"], ids["head"])
    assert await allowed(ids["left"], ids["right"])
    assert not await allowed(ids["leaf"], ids["right"])
    assert not await allowed(uuid4(), ids["head"])
    assert not await allowed("nonsense", ids["head"])
    bad = await anonymous.post("/registry/check-access", json={"caller_id": "x"})
    assert (bad.status_code, bad.json()["error"]) == (400, "invalid request body")


async def test_a_peer_without_a_role_is_searched_like_any(server: Server, admin: httpx.AsyncClient) -> None:
    ids = await tree(server)
    for query, names in (("right", ["right"]), ("research", ["left"]), ("nobody", [])):
        found = await admin.get(f"/registry/{ids['head']}/peers", params={"q": query})
        assert [peer["name"] for peer in found.json()] == names
