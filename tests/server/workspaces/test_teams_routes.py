import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from molecule_ai.server.app import Server
from tests.conftest import ADMIN_TOKEN, MakeServer, connect
from tests.server.workspaces.test_routes import create, events_of, refusal, token_of


@pytest.fixture
async def server(make_server: MakeServer, tmp_path: Path) -> Server:
    root = tmp_path / "templates"
    for name, text in {
        "lead": "runtime: echo\n"
        "sub_workspaces: [{config: helper, name: Anna, role: Helps}, {config: helper}]\n",
        "helper": "runtime: echo\n",
        "alone": "runtime: echo\n",
        "wrong": "runtime: echo\nsub_workspaces: [{name: x}]\n",
        "escape": "runtime: echo\nsub_workspaces: [{config: ../helper}]\n",
    }.items():
        (root / name).mkdir(parents=True)
        (root / name / "config.yaml").write_text(text)
    return await make_server(configs_dir=str(root))


@pytest.fixture
async def admin(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(server, ADMIN_TOKEN) as client:
        yield client


async def test_a_team_comes_up_once_and_goes_down_whole(admin: httpx.AsyncClient, server: Server) -> None:
    lead = await create(admin, "Lead", template="lead", tier=2)
    path = f"/workspaces/{lead['id']}"
    expanded = (await admin.post(f"{path}/expand")).json()
    assert expanded["status"] == "expanded"
    assert [(c["name"], c["role"]) for c in expanded["children"]] == [("Anna", "Helps"), ("helper", None)]
    assert (await admin.post(f"{path}/expand")).json() == expanded
    anna = (await admin.get(f"/workspaces/{expanded['children'][0]['id']}")).json()
    assert (anna["parent_id"], anna["tier"], anna["runtime"]) == (lead["id"], 2, "echo")
    below = await create(admin, "Below", parent_id=anna["id"])
    assert (await admin.post(f"{path}/collapse")).json() == {
        "status": "collapsed",
        "removed": ["Anna", "helper"],
    }
    assert (await admin.get(f"/workspaces/{below['id']}")).status_code == 410
    assert (await admin.post(f"{path}/collapse")).json()["removed"] == []
    names = [name for name, _ in await events_of(server, lead["id"])]
    assert "WORKSPACE_EXPANDED" in names
    assert "WORKSPACE_COLLAPSED" in names


@pytest.mark.parametrize(
    ("config", "status", "error"),
    [
        ("alone", 400, "workspace has no sub_workspaces defined in config"),
        ("wrong", 422, "failed to parse config"),
        ("escape", 400, "invalid template"),
    ],
)
async def test_teams_that_cannot_come_up(
    admin: httpx.AsyncClient, config: str, status: int, error: str
) -> None:
    made = await create(admin, template=config)
    assert refusal(await admin.post(f"/workspaces/{made['id']}/expand")) == (status, error)
    assert len((await admin.get("/workspaces")).json()) == 1


async def test_who_may_expand(admin: httpx.AsyncClient, server: Server) -> None:
    one, other = await create(admin, "One", template="lead"), await create(admin, "Other")
    for verb in ("expand", "collapse"):
        for token in ("", "nonsense", await token_of(admin, other["id"])):
            async with connect(server, token) as client:
                assert (await client.post(f"/workspaces/{one['id']}/{verb}")).status_code == 401
        absent = await admin.post(f"/workspaces/{uuid.uuid4()}/{verb}")
        assert refusal(absent) == (404, "workspace not found")
    async with connect(server, await token_of(admin, one["id"])) as own:
        assert (await own.post(f"/workspaces/{one['id']}/expand")).status_code == 200


async def test_an_external_workspace_has_no_config(admin: httpx.AsyncClient) -> None:
    made = await create(admin, external=True)
    assert refusal(await admin.post(f"/workspaces/{made['id']}/expand")) == (
        400,
        "no config found for workspace",
    )
