import asyncio
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from molecule_ai.server.app import Server
from tests.conftest import ADMIN_TOKEN, MakeServer, connect


async def create(client: httpx.AsyncClient, name: str = "Scout", **fields: Any) -> dict[str, Any]:
    answer = await client.post("/workspaces", json={"name": name, **fields})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def token_of(client: httpx.AsyncClient, workspace_id: str) -> str:
    minted = await client.post(f"/admin/workspaces/{workspace_id}/tokens")
    token: str = minted.json()["auth_token"]
    return token


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


async def launch_files(server: Server, workspace_id: str) -> dict[str, str]:
    async with server.db.connection() as connection:
        files: dict[str, str] = await connection.fetchval(
            "SELECT launch_files FROM workspaces WHERE id = $1", uuid.UUID(workspace_id)
        )
    return files


async def events_of(server: Server, workspace_id: str) -> list[tuple[str, dict[str, Any]]]:
    async with server.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT event_type, payload FROM structure_events WHERE workspace_id = $1 ORDER BY seq",
            uuid.UUID(workspace_id),
        )
    return [(row["event_type"], row["payload"]) for row in rows]


# --- create ---


async def test_a_name_is_enough(admin: httpx.AsyncClient, server: Server) -> None:
    answer = await admin.post("/workspaces", json={"name": "Scout"})
    assert answer.status_code == 201
    assert b'"status":"provisioning"' in answer.content
    body = answer.json()
    assert body["awareness_namespace"] == f"workspace:{body['id']}"
    assert (body["tier"], body["runtime"], body["workspace_access"]) == (3, "langgraph", "none")
    assert body["model"] == "anthropic:claude-opus-4-7"
    assert [w["code"] for w in body["warnings"]] == ["NO_BACKEND"]
    assert await events_of(server, body["id"]) == [
        ("WORKSPACE_PROVISIONING", {"name": "Scout", "tier": 3, "runtime": "langgraph"}),
        ("workspace.create", {"name": "Scout"}),
    ]
    files = await launch_files(server, body["id"])
    assert yaml.safe_load(files["config.yaml"])["model"] == "anthropic:claude-opus-4-7"
    assert "You are Scout" in files["system-prompt.md"]


async def test_a_new_workspace_waits_for_the_reconciler(admin: httpx.AsyncClient, server: Server) -> None:
    made = await create(admin)
    async with server.db.connection() as connection:
        row = await connection.fetchrow(
            "SELECT desired, generation, observed_generation FROM workspaces WHERE id = $1", made["id"]
        )
    assert row is not None
    assert tuple(row) == ("run", 1, 0)


@pytest.mark.parametrize("token", ["", "nonsense"])
async def test_creating_needs_an_admin(server: Server, token: str) -> None:
    async with connect(server, token) as client:
        assert (await client.post("/workspaces", json={"name": "x"})).status_code == 401


async def test_an_agent_creates_no_workspaces(admin: httpx.AsyncClient, server: Server) -> None:
    made = await create(admin)
    async with connect(server, await token_of(admin, made["id"])) as agent:
        assert refusal(await agent.post("/workspaces", json={"name": "x"})) == (
            401,
            "invalid admin auth token",
        )


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({}, 400, "invalid workspace payload"),
        ({"name": ""}, 400, "invalid workspace payload"),
        ({"name": "   "}, 400, "invalid workspace payload"),
        ({"name": 5}, 400, "invalid workspace payload"),
        ({"name": "a\nb"}, 400, "invalid workspace fields"),
        ({"name": "a{b"}, 400, "invalid workspace fields"),
        ({"name": "a" * 256}, 400, "invalid workspace fields"),
        ({"name": "a", "role": "r" * 1001}, 400, "invalid workspace fields"),
        ({"name": "a", "model": "m" * 101}, 400, "invalid workspace fields"),
        ({"name": "a", "template": "../up"}, 400, "invalid template"),
        ({"name": "a", "template": "/etc"}, 400, "invalid template"),
        ({"name": "a", "workspace_dir": "relative"}, 400, "invalid workspace directory"),
        ({"name": "a", "workspace_dir": "/etc/x"}, 400, "invalid workspace directory"),
        ({"name": "a", "workspace_dir": "/srv/../etc"}, 400, "invalid workspace directory"),
        ({"name": "a", "workspace_access": "read_only"}, 400, "invalid workspace access"),
        (
            {"name": "a", "workspace_access": "all", "workspace_dir": "/srv/x"},
            400,
            "invalid workspace access",
        ),
        ({"name": "a", "tier": 5}, 400, "invalid tier"),
        ({"name": "a", "tier": -1}, 400, "invalid tier"),
        ({"name": "a", "runtime": "nonsense"}, 422, "unknown runtime: nonsense"),
        ({"name": "a", "parent_id": str(uuid.uuid4())}, 422, "parent workspace not found"),
        ({"name": "a", "parent_id": "nonsense"}, 422, "parent workspace not found"),
        ({"name": "a", "template": "absent"}, 422, "the template names no runtime"),
        ({"name": "a", "external": True, "url": "http://169.254.169.254/"}, 400, "invalid url"),
        ({"name": "a", "secrets": {"PLATFORM_URL": "x"}}, 400, "reserved secret key"),
        ({"name": "a", "secrets": {"1X": "x"}}, 400, "invalid secret key"),
        ({"name": "a", "canvas": {"x": "left"}}, 400, "invalid workspace payload"),
        ({"name": "a", "budget_limit": -5}, 400, "invalid workspace payload"),
        ({"name": "a", "secrets": ["x"]}, 400, "invalid workspace payload"),
    ],
)
async def test_what_cannot_be_created(
    admin: httpx.AsyncClient, body: dict[str, Any], status: int, error: str
) -> None:
    assert refusal(await admin.post("/workspaces", json=body)) == (status, error)
    assert (await admin.get("/workspaces")).content == b"[]"


async def test_the_refusal_of_a_field_says_which_rule(admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/workspaces", json={"name": "a|b"})
    assert answer.json()["detail"] == "name contains invalid characters"


async def test_a_body_that_is_no_json(admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/workspaces", content=b"{", headers={"content-type": "application/json"})
    assert refusal(answer) == (400, "invalid workspace payload")


async def test_a_taken_name_gets_a_number(admin: httpx.AsyncClient) -> None:
    names = [(await create(admin, "Scout"))["name"] for _ in range(20)]
    assert names[:3] == ["Scout", "Scout (2)", "Scout (3)"]
    assert names[-1] == "Scout (20)"
    assert (await admin.post("/workspaces", json={"name": "Scout"})).status_code == 409
    parent = await create(admin, "Lead")
    assert (await create(admin, "Scout", parent_id=parent["id"]))["name"] == "Scout"


async def test_a_long_name_stays_within_the_limit(admin: httpx.AsyncClient) -> None:
    await create(admin, "a" * 255)
    second = await create(admin, "a" * 255)
    assert len(second["name"]) == 255
    assert second["name"].endswith(" (2)")


async def test_simultaneous_creations_all_get_a_name(make_server: MakeServer) -> None:
    one, two = await make_server(), await make_server()
    async with connect(one, ADMIN_TOKEN) as first, connect(two, ADMIN_TOKEN) as second:
        made = await asyncio.gather(*(create(client, "Twin") for client in (first, second) * 6))
    assert len({body["name"] for body in made}) == 12


async def test_two_platform_agents_are_one_too_many(admin: httpx.AsyncClient) -> None:
    root = await create(admin, "Concierge", kind="platform")
    assert (await admin.post("/workspaces", json={"name": "b", "kind": "platform"})).status_code == 409
    nested = {"name": "c", "kind": "platform", "parent_id": root["id"]}
    assert (await admin.post("/workspaces", json=nested)).status_code == 409


async def test_secrets_given_at_creation_are_sealed(admin: httpx.AsyncClient, server: Server) -> None:
    made = await create(admin, secrets={"API_KEY": "canary-1f8e"})
    async with server.db.connection() as connection:
        assert await server.secrets.environment(connection, uuid.UUID(made["id"])) == {
            "API_KEY": "canary-1f8e"
        }
        sealed = await connection.fetchval("SELECT encrypted_value FROM workspace_secrets")
    assert b"canary-1f8e" not in sealed
    assert ("secret.set", {"key": "API_KEY", "scope": "workspace"}) in await events_of(server, made["id"])


async def test_the_public_pair_of_runtime_and_model_passes(admin: httpx.AsyncClient) -> None:
    made = await create(admin, runtime="claude-code", model="claude-sonnet-4")
    assert (made["runtime"], made["model"]) == ("claude-code", "claude-sonnet-4")
    unlisted = await create(admin, runtime="claude-code", model="MiniMax-M2.7")
    assert "UNLISTED_MODEL" in [w["code"] for w in unlisted["warnings"]]


# --- templates ---


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    root = tmp_path / "templates"
    (root / "research" / "skills").mkdir(parents=True)
    (root / "research" / "config.yaml").write_text(
        "name: Template name\nruntime: 'claude-code' # quoted\nmodel: opus\n"
        "hitl: {default_timeout: 5}\nodd: kept\n"
    )
    (root / "research" / "system-prompt.md").write_text("You look things up.\r\n")
    (root / "research" / "skills" / "s.py").write_text("x = 1\r\n")
    (root / "research" / ".env").write_text("KEY=value")
    (root / "research" / "logo.png").write_bytes(b"\0\1")
    (root / "broken").mkdir()
    (root / "broken" / "config.yaml").write_text("a: [")
    (root / "own-runtime").mkdir()
    (root / "own-runtime" / "config.yaml").write_text("name: x\n")
    (root / "echo-default").mkdir()
    (root / "echo-default" / "config.yaml").write_text("tools: [clock]\n")
    return root


async def test_a_template_is_layered_under_the_request(make_server: MakeServer, templates: Path) -> None:
    server = await make_server(configs_dir=str(templates))
    async with connect(server, ADMIN_TOKEN) as admin:
        made = await create(admin, "Reader", template="research", tier=2, role="Reads")
        assert (made["runtime"], made["model"]) == ("claude-code", "opus")
        files = await launch_files(server, made["id"])
        assert set(files) == {"config.yaml", "system-prompt.md", "skills/s.py"}
        assert files["system-prompt.md"] == "You look things up.\n"
        config = yaml.safe_load(files["config.yaml"])
        assert (config["name"], config["tier"], config["role"]) == ("Reader", 2, "Reads")
        assert (config["hitl"], config["odd"]) == ({"default_timeout": 5}, "kept")
        assert config["runtime_config"] == {"timeout": 0}
        assert made["warnings"][0]["code"] == "TEMPLATE_FILES_LEFT_OUT"


async def test_templates_that_cannot_be_used(make_server: MakeServer, templates: Path) -> None:
    server = await make_server(configs_dir=str(templates))
    async with connect(server, ADMIN_TOKEN) as admin:
        broken = await admin.post("/workspaces", json={"name": "a", "template": "broken"})
        assert refusal(broken) == (400, "invalid template")
        assert "line" in broken.json()["detail"]
        unresolved = await admin.post("/workspaces", json={"name": "a", "template": "own-runtime"})
        assert unresolved.json()["code"] == "RUNTIME_UNRESOLVED"
        fallen_back = await create(admin, template="absent", runtime="echo")
        assert "TEMPLATE_NOT_FOUND" in [w["code"] for w in fallen_back["warnings"]]
        config = yaml.safe_load((await launch_files(server, fallen_back["id"]))["config.yaml"])
        assert config["tools"] == ["clock"]
        assert (await create(admin, runtime="own-runtime"))["runtime"] == "own-runtime"


# --- external ---


async def test_an_external_agent_without_url_gets_its_connection_once(
    admin: httpx.AsyncClient, server: Server
) -> None:
    made = await create(admin, "Far", runtime="external")
    assert (made["external"], made["status"]) == (True, "awaiting_agent")
    connection = made["connection"]
    assert len(connection["auth_token"]) == 43
    assert connection["registry_endpoint"] == "http://molecule.test/registry/register"
    assert 'AUTH_TOKEN    = "<paste from create response>"' in connection["python_snippet"]
    assert 'WORKSPACE_AUTH_TOKEN="<paste from create response>"' in connection["curl_register_template"]
    compile(connection["python_snippet"], "snippet", "exec")
    assert ("WORKSPACE_AWAITING_AGENT", {"name": "Far", "external": True}) in await events_of(
        server, made["id"]
    )
    async with connect(server, connection["auth_token"]) as agent:
        state = await agent.get(f"/workspaces/{made['id']}/state")
    assert state.json() == {
        "workspace_id": made["id"],
        "status": "awaiting_agent",
        "paused": False,
        "deleted": False,
    }


async def test_an_external_agent_with_url_is_online_at_once(admin: httpx.AsyncClient, server: Server) -> None:
    made = await create(admin, "Far", external=True, url="http://localhost:8001")
    assert (made["external"], made["status"]) == (True, "online")
    assert "connection" not in made
    assert (await admin.get(f"/workspaces/{made['id']}")).json()["url"] == "http://localhost:8001"
    assert ("WORKSPACE_ONLINE", {"name": "Far", "external": True}) in await events_of(server, made["id"])


# --- list ---


async def test_the_empty_list_is_two_brackets(admin: httpx.AsyncClient) -> None:
    assert (await admin.get("/workspaces")).content == b"[]"


async def test_the_list_shows_what_a_single_read_shows(admin: httpx.AsyncClient) -> None:
    made = await create(admin, "Scout", role="Looks", canvas={"x": 100, "y": 2.5})
    listed = await admin.get("/workspaces")
    assert b'"x":100,"y":2.5' in listed.content
    assert b'"agent_card":null' in listed.content
    assert b'"last_error_rate":0,' in listed.content
    single = (await admin.get(f"/workspaces/{made['id']}")).json()
    assert listed.json() == [single]
    assert single["canvas"] == {"x": 100, "y": 2.5}


async def test_an_unchanged_list_is_not_sent_again(admin: httpx.AsyncClient) -> None:
    await create(admin)
    etag = (await admin.get("/workspaces")).headers["etag"]
    again = await admin.get("/workspaces", headers={"if-none-match": etag})
    assert (again.status_code, again.content) == (304, b"")
    await create(admin)
    assert (await admin.get("/workspaces", headers={"if-none-match": etag})).status_code == 200


async def test_lists_can_be_narrowed_and_paged(admin: httpx.AsyncClient) -> None:
    lead = await create(admin, "Lead")
    for number in range(5):
        await create(admin, f"Scout {number}", parent_id=lead["id"], runtime="echo")

    async def names(**query: Any) -> list[str]:
        answer = await admin.get("/workspaces", params=query)
        assert answer.status_code == 200, answer.text
        return [workspace["name"] for workspace in answer.json()]

    assert await names(parent_id="null") == ["Lead"]
    assert len(await names(parent_id=lead["id"])) == 5
    assert await names(runtime="langgraph") == ["Lead"]
    assert await names(q="scout 3", status="provisioning", kind="workspace") == ["Scout 3"]
    assert await names(q="%") == []
    first = await admin.get("/workspaces", params={"limit": 4})
    rest = await admin.get("/workspaces", params={"cursor": first.headers["x-next-cursor"]})
    assert len(first.json()) == 4
    assert [w["name"] for w in rest.json()] == ["Scout 3", "Scout 4"]
    assert "x-next-cursor" not in rest.headers


@pytest.mark.parametrize(
    "query", [{"status": "odd"}, {"parent_id": "odd"}, {"limit": "0"}, {"limit": "x"}, {"cursor": "odd"}]
)
async def test_filters_that_make_no_sense(admin: httpx.AsyncClient, query: dict[str, str]) -> None:
    answer = await admin.get("/workspaces", params=query)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_filter")


async def test_the_list_needs_an_admin(anonymous: httpx.AsyncClient) -> None:
    assert refusal(await anonymous.get("/workspaces")) == (401, "admin auth required")


# --- get ---


async def test_strangers_see_the_redacted_form(admin: httpx.AsyncClient, server: Server) -> None:
    one, other = await create(admin, "One"), await create(admin, "Other")
    hidden = {"last_sample_error", "current_task", "workspace_dir", "budget_limit", "monthly_spend"}
    for token in ("", "nonsense", await token_of(admin, other["id"])):
        async with connect(server, token) as stranger:
            seen = (await stranger.get(f"/workspaces/{one['id']}")).json()
        assert seen["name"] == "One"
        assert not hidden & seen.keys()
    for token in (ADMIN_TOKEN, await token_of(admin, one["id"])):
        async with connect(server, token) as known:
            assert hidden <= (await known.get(f"/workspaces/{one['id']}")).json().keys()


@pytest.mark.settings(workspace_get_requires_auth=True)
async def test_the_redacted_form_can_be_closed(
    admin: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    made = await create(admin)
    assert refusal(await anonymous.get(f"/workspaces/{made['id']}")) == (401, "missing workspace auth token")


async def test_what_is_not_there(admin: httpx.AsyncClient) -> None:
    assert refusal(await admin.get("/workspaces/nonsense")) == (400, "invalid workspace ID")
    assert refusal(await admin.get(f"/workspaces/{uuid.uuid4()}")) == (404, "workspace not found")


async def test_a_removed_workspace_is_gone_but_can_be_read(admin: httpx.AsyncClient, server: Server) -> None:
    made = await create(admin)
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE workspaces SET status = 'removed', removed_at = now()")
    gone = await admin.get(f"/workspaces/{made['id']}")
    assert refusal(gone) == (410, "workspace removed")
    assert {"id", "removed_at", "hint"} <= gone.json().keys()
    kept = await admin.get(f"/workspaces/{made['id']}", params={"include_removed": "true"})
    assert (kept.status_code, kept.json()["status"]) == (200, "removed")
    assert (await admin.get("/workspaces")).content == b"[]"
    state = await admin.get(f"/workspaces/{made['id']}/state")
    assert state.status_code == 404
    assert state.json()["deleted"] is True
    assert (await admin.patch(f"/workspaces/{made['id']}", json={"name": "x"})).status_code == 410


# --- patch ---


async def test_a_change_is_stored_told_and_written_into_the_config(
    admin: httpx.AsyncClient, server: Server
) -> None:
    made = await create(admin)
    answer = await admin.patch(
        f"/workspaces/{made['id']}", json={"name": "Guide", "role": "Leads", "tier": 2, "model": "ignored"}
    )
    assert (answer.status_code, answer.json()) == (200, {"status": "updated"})
    now = (await admin.get(f"/workspaces/{made['id']}")).json()
    assert (now["name"], now["role"], now["tier"], now["model"]) == ("Guide", "Leads", 2, made["model"])
    assert (await events_of(server, made["id"]))[-1] == (
        "WORKSPACE_UPDATED",
        {"changed": ["name", "role", "tier"], "name": "Guide", "role": "Leads", "tier": 2},
    )
    config = yaml.safe_load((await launch_files(server, made["id"]))["config.yaml"])
    assert (config["name"], config["description"], config["tier"]) == ("Guide", "Leads", 2)


async def test_a_position_is_broadcast_but_not_recorded(admin: httpx.AsyncClient, server: Server) -> None:
    made = await create(admin)
    before = await events_of(server, made["id"])
    await admin.patch(f"/workspaces/{made['id']}", json={"x": 5, "y": 7, "collapsed": True})
    now = (await admin.get(f"/workspaces/{made['id']}")).json()
    assert (now["x"], now["y"], now["collapsed"]) == (5, 7, True)
    assert await events_of(server, made["id"]) == before
    await admin.patch(f"/workspaces/{made['id']}", json={"x": 9})
    assert (await admin.get(f"/workspaces/{made['id']}")).json()["x"] == 5


async def test_a_new_runtime_or_mount_needs_a_restart(admin: httpx.AsyncClient) -> None:
    made = await create(admin)
    answer = await admin.patch(
        f"/workspaces/{made['id']}",
        json={"runtime": "echo", "workspace_dir": "/srv/x", "workspace_access": "read_write"},
    )
    assert answer.json()["needs_restart"] is True
    same = await admin.patch(f"/workspaces/{made['id']}", json={"runtime": "echo"})
    assert "needs_restart" not in same.json()
    unmounted = await admin.patch(f"/workspaces/{made['id']}", json={"workspace_dir": None})
    assert unmounted.json()["restart_reasons"] == ["workspace_dir", "workspace_access"]


async def test_a_move_is_an_event_of_its_own(admin: httpx.AsyncClient, server: Server) -> None:
    lead, scout = await create(admin, "Lead"), await create(admin, "Scout")
    await admin.patch(f"/workspaces/{scout['id']}", json={"parent_id": lead["id"]})
    assert (
        "WORKSPACE_MOVED",
        {"old_parent_id": None, "new_parent_id": lead["id"]},
    ) in await events_of(server, scout["id"])
    assert (await admin.patch(f"/workspaces/{scout['id']}", json={"parent_id": None})).status_code == 200


async def test_moves_that_make_no_tree(admin: httpx.AsyncClient) -> None:
    lead = await create(admin, "Lead")
    scout = await create(admin, "Scout", parent_id=lead["id"])
    concierge = await create(admin, "Concierge", kind="platform")
    twin = await create(admin, "Scout")
    for child, parent, status, code in (
        (lead, lead["id"], 409, "PARENT_CYCLE"),
        (lead, scout["id"], 409, "PARENT_CYCLE"),
        (lead, str(uuid.uuid4()), 422, "PARENT_NOT_FOUND"),
        (lead, "nonsense", 422, "PARENT_NOT_FOUND"),
        (concierge, lead["id"], 409, "PLATFORM_HAS_NO_PARENT"),
        (twin, lead["id"], 409, "NAME_TAKEN"),
    ):
        answer = await admin.patch(f"/workspaces/{child['id']}", json={"parent_id": parent})
        assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_two_moves_that_together_make_a_circle(make_server: MakeServer) -> None:
    one, two = await make_server(), await make_server()
    async with connect(one, ADMIN_TOKEN) as first, connect(two, ADMIN_TOKEN) as second:
        a, b = await create(first, "A"), await create(first, "B")
        answers = await asyncio.gather(
            first.patch(f"/workspaces/{a['id']}", json={"parent_id": b["id"]}),
            second.patch(f"/workspaces/{b['id']}", json={"parent_id": a["id"]}),
        )
    assert sorted(answer.status_code for answer in answers) == [200, 409]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"name": "a\nb"}, "name must not contain newline characters"),
        ({"name": "a*"}, "name contains invalid characters"),
        ({"name": "a" * 256}, "name must be at most 255 characters"),
        ({"name": " "}, "name must not be empty"),
        ({"name": 5}, "invalid request body"),
        ({"tier": 9}, "invalid tier"),
        ({"tier": "two"}, "invalid request body"),
        ({"workspace_dir": "/etc"}, "invalid workspace directory"),
        ({"workspace_access": "read_only"}, "invalid workspace access"),
    ],
)
async def test_changes_that_are_refused(admin: httpx.AsyncClient, body: dict[str, Any], error: str) -> None:
    made = await create(admin)
    answer = await admin.patch(f"/workspaces/{made['id']}", json={"role": "half", **body})
    assert refusal(answer) == (400, error)
    assert (await admin.get(f"/workspaces/{made['id']}")).json()["role"] is None


async def test_with_an_admin_token_every_change_needs_a_credential(
    admin: httpx.AsyncClient, anonymous: httpx.AsyncClient, server: Server
) -> None:
    one, other = await create(admin, "One"), await create(admin, "Other")
    path = f"/workspaces/{one['id']}"
    assert refusal(await anonymous.patch(path, json={"name": "x"})) == (401, "missing workspace auth token")
    async with connect(server, await token_of(admin, other["id"])) as stranger:
        assert refusal(await stranger.patch(path, json={"name": "x"})) == (
            401,
            "invalid workspace auth token",
        )
    async with connect(server, await token_of(admin, one["id"])) as own:
        assert (await own.patch(path, json={"tier": 2})).status_code == 200


@pytest.mark.settings(workspace_self_patch_sensitive=False)
async def test_an_agent_can_be_kept_from_its_own_tier(admin: httpx.AsyncClient, server: Server) -> None:
    made = await create(admin)
    async with connect(server, await token_of(admin, made["id"])) as own:
        refused = await own.patch(f"/workspaces/{made['id']}", json={"tier": 1, "name": "x"})
        assert (refused.status_code, refused.json()["code"]) == (403, "FIELD_REQUIRES_ADMIN")
        assert (await own.patch(f"/workspaces/{made['id']}", json={"name": "x"})).status_code == 200


@pytest.mark.settings(admin_token="")
async def test_without_an_admin_token_names_change_without_a_credential(
    anonymous: httpx.AsyncClient, server: Server
) -> None:
    made = await create(anonymous)
    assert (await anonymous.patch(f"/workspaces/{made['id']}", json={"tier": 2})).status_code == 200
    await token_of(anonymous, made["id"])
    path = f"/workspaces/{made['id']}"
    assert (await anonymous.patch(path, json={"name": "Renamed", "x": 1, "y": 2})).status_code == 200
    mixed = await anonymous.patch(path, json={"name": "No", "tier": 1})
    assert refusal(mixed) == (401, "missing workspace auth token")
    assert (await anonymous.get(path)).json()["name"] == "Renamed"
