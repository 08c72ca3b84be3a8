import asyncio
import uuid

import httpx
import pytest
import yaml

from molecule_ai.server.app import Server
from tests.conftest import ADMIN_TOKEN, MakeServer, connect
from tests.server.workspaces.test_routes import create, events_of, launch_files, refusal, token_of

# --- model ---


async def test_a_chosen_model_reaches_row_config_and_ledger(admin: httpx.AsyncClient, server: Server) -> None:
    made = await create(admin, secrets={"MODEL_PROVIDER": "old", "KEEP": "v"})
    path = f"/workspaces/{made['id']}"
    assert (await admin.get(f"{path}/model")).json() == {"model": "", "source": "default"}
    saved = await admin.put(f"{path}/model", json={"model": "offline:demo"})
    assert saved.json() == {"status": "saved", "model": "offline:demo"}
    assert (await admin.get(f"{path}/model")).json() == {
        "model": "offline:demo",
        "source": "workspace_secrets",
    }
    assert (await admin.get(path)).json()["model"] == "offline:demo"
    config = yaml.safe_load((await launch_files(server, made["id"]))["config.yaml"])
    assert config["model"] == "offline:demo"
    assert [s["key"] for s in (await admin.get(f"{path}/secrets")).json()] == ["KEEP"]
    assert (await admin.get(f"{path}/agents")).json()[0]["model"] == "offline:demo"
    names = [name for name, _ in await events_of(server, made["id"])]
    assert "AGENT_REPLACED" in names
    assert "secret.delete" in names


async def test_an_empty_model_goes_back_to_the_default(admin: httpx.AsyncClient) -> None:
    made = await create(admin, model="offline:demo")
    path = f"/workspaces/{made['id']}"
    assert (await admin.put(f"{path}/model", json={"model": ""})).json() == {"status": "cleared"}
    assert (await admin.get(f"{path}/model")).json() == {"model": "", "source": "default"}
    assert (await admin.get(path)).json()["model"] == "anthropic:claude-opus-4-7"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "invalid request body"),
        ({"model": 5}, "invalid request body"),
        ({"model": "a\nb"}, "model must not contain newline characters"),
        ({"model": "m" * 101}, "model must be at most 100 characters"),
    ],
)
async def test_models_that_are_refused(admin: httpx.AsyncClient, body: dict[str, object], error: str) -> None:
    made = await create(admin)
    assert refusal(await admin.put(f"/workspaces/{made['id']}/model", json=body)) == (400, error)


async def test_a_model_is_the_business_of_its_workspace(admin: httpx.AsyncClient, server: Server) -> None:
    one, other = await create(admin, "One"), await create(admin, "Other")
    path = f"/workspaces/{one['id']}/model"
    for token, status in (("", 401), ("nonsense", 401), (await token_of(admin, other["id"]), 401)):
        async with connect(server, token) as client:
            assert (await client.put(path, json={"model": "x:y"})).status_code == status
    async with connect(server, await token_of(admin, one["id"])) as own:
        assert (await own.put(path, json={"model": "x:y"})).status_code == 200
    assert refusal(await admin.get(f"/workspaces/{uuid.uuid4()}/model")) == (404, "workspace not found")


# --- agent records ---


async def test_the_ledger_is_never_empty_and_follows_each_change(
    admin: httpx.AsyncClient, server: Server
) -> None:
    made = await create(admin, model="a:one")
    path = f"/workspaces/{made['id']}/agent"
    taken = await admin.post(path, json={"model": "a:two"})
    assert refusal(taken) == (409, "workspace already has an active agent, use PATCH to replace")
    replaced = (await admin.patch(path, json={"model": "a:two"})).json()
    assert (replaced["model"], replaced["old_model"]) == ("a:two", "a:one")
    removed = (await admin.delete(path)).json()
    assert removed == {"agent_id": replaced["agent_id"], "status": "removed"}
    assert refusal(await admin.delete(path)) == (404, "no active agent to remove")
    assert refusal(await admin.patch(path, json={"model": "x"})) == (404, "no active agent to replace")
    assigned = await admin.post(path, json={"model": "a:three"})
    assert (assigned.status_code, assigned.json()["model"]) == (201, "a:three")
    assert (await admin.get(f"/workspaces/{made['id']}")).json()["model"] == "a:three"
    names = [name for name, _ in await events_of(server, made["id"])]
    assert names[2:] == ["AGENT_REPLACED", "AGENT_REMOVED", "AGENT_ASSIGNED"]
    assert refusal(await admin.post(path, json={})) == (400, "invalid request body")


async def test_of_two_who_assign_one_wins(make_server: MakeServer) -> None:
    one, two = await make_server(), await make_server()
    async with connect(one, ADMIN_TOKEN) as first, connect(two, ADMIN_TOKEN) as second:
        made = await create(first)
        await first.delete(f"/workspaces/{made['id']}/agent")
        path = f"/workspaces/{made['id']}/agent"
        answers = await asyncio.gather(*(c.post(path, json={"model": "a:b"}) for c in (first, second)))
    assert sorted(answer.status_code for answer in answers) == [201, 409]


async def test_an_agent_moves_to_an_empty_role(admin: httpx.AsyncClient, server: Server) -> None:
    source, target = await create(admin, "From", model="a:one"), await create(admin, "To")
    path = f"/workspaces/{source['id']}/agent/move"
    body = {"target_workspace_id": target["id"]}
    assert refusal(await admin.post(path, json=body)) == (
        409,
        "target workspace already has an active agent",
    )
    await admin.delete(f"/workspaces/{target['id']}/agent")
    async with connect(server, await token_of(admin, source["id"])) as own:
        assert (await own.post(path, json=body)).status_code == 403
    moved = (await admin.post(path, json=body)).json()
    assert (moved["model"], moved["from_workspace"], moved["to_workspace"]) == (
        "a:one",
        source["id"],
        target["id"],
    )
    assert (await admin.get(f"/workspaces/{target['id']}")).json()["model"] == "a:one"
    assert refusal(await admin.post(path, json=body)) == (404, "no active agent in source workspace")
    absent = await admin.post(path, json={"target_workspace_id": str(uuid.uuid4())})
    assert refusal(absent) == (404, "target workspace not found")
    told = dict(await events_of(server, target["id"]))["AGENT_MOVED"]
    assert told["source_workspace_id"] == source["id"]


async def test_the_command_line_lists_agents(admin: httpx.AsyncClient, anonymous: httpx.AsyncClient) -> None:
    made = await create(admin, model="a:one", runtime="echo")
    listed = (await admin.get("/agents")).json()
    assert [(a["name"], a["workspace_id"], a["model"], a["runtime"], a["status"]) for a in listed] == [
        ("Scout", made["id"], "a:one", "echo", "provisioning")
    ]
    assert (await admin.get(f"/agents/{listed[0]['id']}")).json() == listed[0]
    assert (await admin.get(f"/workspaces/{made['id']}/agents")).json() == listed
    for missing in (uuid.uuid4(), "nonsense"):
        assert refusal(await admin.get(f"/agents/{missing}")) == (404, "agent not found")
    assert (await anonymous.get("/agents")).status_code == 401
