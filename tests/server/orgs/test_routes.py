import asyncio
import uuid
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import yaml

from molecule_ai.server.app import Server
from tests.conftest import ADMIN_TOKEN, MakeServer, connect
from tests.server.workspaces.test_routes import create, events_of, launch_files, refusal
from tests.support import wait_for

TEAM = {
    "name": "Harbour",
    "defaults": {"runtime": "echo", "tier": 2},
    "workspaces": [
        {
            "name": "Captain & Co",
            "role": "Leads. " * 200,
            "tier": 3,
            "max_concurrent_tasks": 3,
            "initial_prompt": "Look around.\nThen wait.",
            "approvals": [{"action": "publish*", "reason": "cannot be undone"}],
            "canvas": {"x": 320, "y": 40},
            "children": [{"name": "Guard"}, {"name": "Scribe", "children": [{"name": "Clerk"}]}],
        }
    ],
}


async def post(client: httpx.AsyncClient, body: Any) -> httpx.Response:
    return await client.post("/org/import", json=body)


async def tree(client: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    return {workspace["name"]: workspace for workspace in (await client.get("/workspaces")).json()}


# --- what an import makes ---


async def test_a_document_becomes_a_tree(admin: httpx.AsyncClient, server: Server) -> None:
    answer = await post(admin, {"template": TEAM})
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert (body["org"], body["count"], body["created_count"], body["mode"]) == ("Harbour", 4, 4, "merge")
    assert [row["name"] for row in body["workspaces"]] == ["Captain & Co", "Guard", "Scribe", "Clerk"]
    made = await tree(admin)
    assert list(made) == ["Captain & Co", "Guard", "Scribe", "Clerk"]
    captain, scribe, clerk = made["Captain & Co"], made["Scribe"], made["Clerk"]
    assert (captain["parent_id"], captain["tier"], captain["max_concurrent_tasks"]) == (None, 3, 3)
    assert scribe["parent_id"] == captain["id"]
    assert clerk["parent_id"] == scribe["id"]
    assert {w["status"] for w in made.values()} == {"provisioning"}
    config = yaml.safe_load((await launch_files(server, captain["id"]))["config.yaml"])
    assert config["initial_prompt"] == "Look around.\nThen wait."
    assert config["approvals"] == [{"action": "publish*", "reason": "cannot be undone"}]
    assert "You report to Captain & Co" in (await launch_files(server, scribe["id"]))["system-prompt.md"]


async def test_roles_stand_below_their_parent(admin: httpx.AsyncClient, server: Server) -> None:
    await post(admin, {"template": TEAM})
    made = await tree(admin)
    assert made["Captain & Co"]["canvas"] == {"x": 320, "y": 40}
    assert made["Guard"]["canvas"] == {"x": 320 + 16, "y": 40 + 130}
    # Scribe has a child, so both columns are as wide as its frame: 240 and its padding.
    assert made["Scribe"]["canvas"] == {"x": 320 + 16 + 272 + 14, "y": 170}
    event = (await events_of(server, made["Guard"]["id"]))[0]
    assert (event[0], event[1]["x"], event[1]["y"]) == ("WORKSPACE_PROVISIONING", 16, 130)
    await post(admin, {"template": {"name": "Second", "workspaces": [{"name": "Other"}]}})
    assert (await tree(admin))["Other"]["x"] > made["Scribe"]["x"] + 240


async def test_an_import_twice_changes_nothing(admin: httpx.AsyncClient) -> None:
    first = (await post(admin, {"template": TEAM})).json()
    second = (await post(admin, {"template": TEAM})).json()
    assert (second["created_count"], second["skipped_count"]) == (0, 4)
    assert all(row["skipped"] for row in second["workspaces"])
    assert [row["id"] for row in second["workspaces"]] == [row["id"] for row in first["workspaces"]]


async def test_schedules_follow_the_document_and_rules_come_with_the_role(
    admin: httpx.AsyncClient, server: Server
) -> None:
    role = {
        "name": "Top",
        "schedules": [
            {"name": "Pulse", "cron_expr": "5 7 * * 1-5", "timezone": "Europe/Oslo", "prompt": "Report."},
            {"name": "Bad", "cron_expr": "nonsense", "prompt": "x"},
        ],
        "approvals": [{"action": "publish*", "approver": "parent", "ttl_minutes": 60, "reason": "r"}],
    }
    body = (await post(admin, {"template": {"name": "x", "workspaces": [role]}})).json()
    assert any("cron" in warning for warning in body["warnings"])
    top = body["workspaces"][0]["id"]
    schedules = (await admin.get(f"/workspaces/{top}/schedules")).json()
    assert [(s["name"], s["source"], s["timezone"]) for s in schedules] == [
        ("Pulse", "template", "Europe/Oslo")
    ]
    rules = await server.approvals.rules(uuid.UUID(top))
    assert [(rule.action, rule.approver, rule.ttl_seconds) for rule in rules.rules] == [
        ("publish*", "parent", 3600)
    ]
    role["schedules"][0]["prompt"] = "Report again."  # type: ignore[index]
    again = (await post(admin, {"template": {"name": "x", "workspaces": [role]}})).json()
    assert again["skipped_count"] == 1
    schedules = (await admin.get(f"/workspaces/{top}/schedules")).json()
    assert [s["prompt"] for s in schedules] == ["Report again."]


async def test_what_is_missing_is_filled_in(admin: httpx.AsyncClient, server: Server) -> None:
    await post(admin, {"template": TEAM})
    before = await tree(admin)
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE workspaces SET status = 'removed' WHERE name = 'Clerk'")
    again = (await post(admin, {"template": TEAM})).json()
    assert (again["created_count"], again["skipped_count"]) == (1, 3)
    clerk = (await tree(admin))["Clerk"]
    assert clerk["parent_id"] == before["Scribe"]["id"]
    assert clerk["id"] != before["Clerk"]["id"]


async def test_the_examples_come_up_by_name(admin: httpx.AsyncClient, server: Server) -> None:
    offered = {template["dir"]: template for template in (await admin.get("/org/templates")).json()}
    assert offered["launch-studio"]["workspaces"] >= 6
    answer = await post(admin, {"dir": "launch-studio"})
    assert answer.status_code == 201, answer.text
    made = await tree(admin)
    assert answer.json()["count"] == len(made) == offered["launch-studio"]["workspaces"]
    director = made["Launch Director"]
    files = await launch_files(server, director["id"])
    assert yaml.safe_load(files["config.yaml"])["model"] == "offline:demo" == director["model"]
    assert len(files["system-prompt.md"]) > 200


@pytest.mark.parametrize(
    "body",
    [
        {"yaml": yaml.safe_dump(TEAM)},
        {"template": yaml.safe_dump(TEAM)},
        TEAM,
        {"template": {**TEAM, "roots": TEAM["workspaces"], "workspaces": None}},
    ],
)
async def test_a_document_has_several_shapes(admin: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await post(admin, body)).json().get("created_count") == 4


async def test_a_body_may_be_yaml_itself(admin: httpx.AsyncClient) -> None:
    answer = await admin.post(
        "/org/import",
        params={"dry_run": "true"},
        content=yaml.safe_dump(TEAM),
        headers={"content-type": "application/yaml; charset=utf-8"},
    )
    assert (answer.status_code, answer.json()["created_count"]) == (200, 4)
    assert await tree(admin) == {}


async def test_a_dry_run_shows_the_plan_and_makes_nothing(admin: httpx.AsyncClient, server: Server) -> None:
    await create(admin, "Captain")
    plan = await post(admin, {"template": TEAM, "dry_run": True})
    assert plan.status_code == 200
    body = plan.json()
    assert (body["dry_run"], body["created_count"], body["workspaces"][0]["id"]) == (True, 4, None)
    assert list(await tree(admin)) == ["Captain"]
    async with server.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM org_imports") == 0


async def test_roles_that_do_not_spawn_are_left_out(admin: httpx.AsyncClient) -> None:
    lab = {"name": "Lab", "spawning": False, "children": [{"name": "Tester"}]}
    await post(admin, {"template": {"name": "x", "workspaces": [{"name": "Top", "children": [lab]}]}})
    assert list(await tree(admin)) == ["Top"]


async def test_external_roles_wait_for_their_agent_or_are_online(
    admin: httpx.AsyncClient, server: Server
) -> None:
    roles = [
        {"name": "Far", "external": True},
        {"name": "Near", "external": True, "url": "http://localhost:9"},
    ]
    await post(admin, {"template": {"name": "x", "workspaces": roles}})
    made = await tree(admin)
    assert (made["Far"]["status"], made["Near"]["status"]) == ("awaiting_agent", "online")
    assert made["Near"]["runtime"] == "external"
    assert ("WORKSPACE_ONLINE", {"name": "Near", "external": True}) in await events_of(
        server, made["Near"]["id"]
    )
    hidden = {"name": "Bad", "external": True, "url": "http://169.254.169.254/x"}
    refused = await post(admin, {"template": {"name": "x", "workspaces": [hidden]}})
    assert refused.status_code == 400
    assert refused.json()["problems"][0]["role"] == "Bad"


async def test_what_this_version_cannot_keep_is_said(admin: httpx.AsyncClient) -> None:
    role = {
        "name": "Top",
        "plugins": ["superpowers"],
        "initial_memories": [{"content": "x"}],
        "channels": [{"type": "telegram", "config": {}}, {"config": {}}],
        "typo": 1,
    }
    body = (await post(admin, {"template": {"name": "x", "workspaces": [role]}})).json()
    assert "plugin superpowers not found" in body["warnings"]
    assert any("memories" in warning for warning in body["warnings"])
    assert any("typo" in warning for warning in body["warnings"])
    assert body["workspaces"][0]["channels_skipped"] == [
        {"workspace": "Top", "type": "telegram", "reason": "unknown adapter"},
        {"workspace": "Top", "type": "", "reason": "empty type"},
    ]


async def test_the_import_is_recorded(admin: httpx.AsyncClient, server: Server) -> None:
    await post(admin, {"template": TEAM})
    async with server.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT event_type, payload, actor FROM structure_events WHERE event_type LIKE 'org.import.%'"
            " ORDER BY seq"
        )
        record = await connection.fetchrow("SELECT status, created_count, error FROM org_imports")
    assert [row["event_type"] for row in rows] == ["org.import.started", "org.import.completed"]
    assert rows[1]["payload"]["created_count"] == 4
    assert rows[1]["actor"] == "admin-token"
    assert record is not None
    assert tuple(record) == ("completed", 4, "")


# --- directories: layers, secrets, mounts ---


@pytest.fixture
def orgs(tmp_path: Path) -> Path:
    root = tmp_path / "orgs"
    captain = root / "harbour" / "captain"
    captain.mkdir(parents=True)
    (root / "harbour" / ".env").write_text("SHARED=one\nOVER=org\nPATH=/evil\n")
    (captain / ".env").write_text("OVER=role\n")
    (captain / "system-prompt.md").write_text("You are the captain.\n")
    (captain / "config.yaml").write_text("model: opus\nhitl: {default_timeout: 5}\ntier: 4\n")
    (captain / "workspace.yaml").write_text("secrets: {A: b}\n")
    (root / "harbour" / "org.yaml").write_text(
        "name: Harbour\n"
        "required_env: [SHARED]\n"
        "workspaces:\n"
        "  - name: Captain\n"
        "    runtime: claude-code\n"
        "    files_dir: captain\n"
        "    workspace_dir: ${WORKSPACE_DIR}\n"
        "    workspace_access: read_write\n"
        "    secrets: {BOARD: '${SLACK_BOARD}', LITERAL: 'pa$$word', GONE: '${HOME}'}\n"
    )
    broken = root / "broken"
    broken.mkdir()
    (broken / "org.yaml").write_text("name: x\nworkspaces: [\n")
    (root / "empty").mkdir()
    return root


async def test_directories_are_layered_and_secrets_stay_out_of_files(
    make_server: MakeServer, orgs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK_BOARD", "canary-board")
    monkeypatch.setenv("WORKSPACE_DIR", "/srv/harbour")
    server = await make_server(org_templates_dir=str(orgs))
    async with connect(server, ADMIN_TOKEN) as admin:
        answer = await post(admin, {"dir": "harbour"})
        assert answer.status_code == 201, answer.text
        captain = (await tree(admin))["Captain"]
        files = await launch_files(server, captain["id"])
        assert set(files) == {"config.yaml", "system-prompt.md"}
        config = yaml.safe_load(files["config.yaml"])
        assert (config["model"], config["tier"], config["hitl"]) == ("opus", 2, {"default_timeout": 5})
        assert (captain["model"], captain["workspace_dir"]) == ("opus", "/srv/harbour")
        assert captain["workspace_access"] == "read_write"
        async with server.db.connection() as connection:
            environment = await server.secrets.environment(connection, uuid.UUID(captain["id"]))
        assert environment == {
            "SHARED": "one",
            "OVER": "role",
            "BOARD": "canary-board",
            "LITERAL": "pa$$word",
        }
        assert "canary" not in answer.text
        assert any("GONE" in warning for warning in answer.json()["warnings"])
        assert any("PATH" in warning for warning in answer.json()["warnings"])


async def test_a_mount_that_is_not_set_is_no_mount_and_a_bad_one_is_refused(
    make_server: MakeServer, orgs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKSPACE_DIR", "/etc/secret")
    server = await make_server(org_templates_dir=str(orgs))
    async with connect(server, ADMIN_TOKEN) as admin:
        refused = await post(admin, {"dir": "harbour"})
        assert (refused.status_code, refused.json()["problems"][0]["role"]) == (400, "Captain")
        assert await tree(admin) == {}
    monkeypatch.delenv("WORKSPACE_DIR")
    server = await make_server(org_templates_dir=str(orgs))
    async with connect(server, ADMIN_TOKEN) as admin:
        assert (await post(admin, {"dir": "harbour"})).status_code == 201
        captain = (await tree(admin))["Captain"]
        assert (captain["workspace_dir"], captain["workspace_access"]) == (None, "none")


async def test_broken_templates_are_listed_on_request(make_server: MakeServer, orgs: Path) -> None:
    server = await make_server(org_templates_dir=str(orgs))
    async with connect(server, ADMIN_TOKEN) as admin:
        assert [t["dir"] for t in (await admin.get("/org/templates")).json()] == ["harbour"]
        listed = (await admin.get("/org/templates", params={"include_invalid": "1"})).json()
        assert [t["dir"] for t in listed] == ["broken", "harbour"]
        assert "org.yaml:" in listed[0]["error"]


# --- what is refused ---


def team_of(**role: Any) -> dict[str, Any]:
    return {"template": {"name": "x", "workspaces": [{"name": "Top"}, {"name": "Bad", **role}]}}


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({}, 400, "provide 'dir' or 'template'"),
        ([], 400, "invalid request body"),
        ({"template": 5}, 400, "invalid request body"),
        ({"dir": "../up"}, 400, "invalid org directory"),
        ({"dir": "/etc"}, 400, "invalid org directory"),
        ({"dir": "absent"}, 404, "org template not found: absent"),
        ({"template": {}}, 400, "invalid org template"),
        ({"template": {"name": "x"}}, 400, "invalid org template"),
        ({"yaml": "name: x\nworkspaces:\n  - name: [\n"}, 400, "invalid org template"),
        ({"yaml": "name: x\nworkspaces:\n  - !include a.yaml\n"}, 400, "org template expansion failed"),
        ({"yaml": "a: &a {b: *a}"}, 400, "invalid org template"),
        (team_of(runtime="nonsense"), 400, "invalid org template"),
        (team_of(tier=9), 400, "invalid org template"),
        (team_of(workspace_dir="/etc"), 400, "invalid org template"),
        (
            {"template": {"name": "x", "workspaces": [{"name": "A"}, {"name": "A"}]}},
            400,
            "invalid org template",
        ),
        ({"template": TEAM, "mode": "odd"}, 400, "mode must be merge"),
        (
            {"source": "github://a/b"},
            501,
            "importing from a remote source is not available on this deployment",
        ),
    ],
)
async def test_what_cannot_be_imported(admin: httpx.AsyncClient, body: Any, status: int, error: str) -> None:
    assert refusal(await post(admin, body)) == (status, error)
    assert await tree(admin) == {}


async def test_a_refusal_names_the_line(admin: httpx.AsyncClient) -> None:
    text = "name: x\nworkspaces:\n  - name: Top\n  - name: Bad\n    runtime: nonsense\n"
    problem = (await post(admin, {"yaml": text})).json()["problems"][0]
    assert (problem["role"], problem["line"]) == ("Bad", 5)
    syntax = (await post(admin, {"yaml": "name: x\nworkspaces: [\n  - }\n"})).json()
    assert syntax["problems"][0]["line"] == 3


async def test_includes_that_circle_or_escape(make_server: MakeServer, tmp_path: Path) -> None:
    root = tmp_path / "orgs"
    for name, text in {
        "circle": "name: x\nworkspaces:\n  - !include org.yaml\n",
        "escape": "name: x\nworkspaces:\n  - !include ../circle/org.yaml\n",
    }.items():
        (root / name).mkdir(parents=True)
        (root / name / "org.yaml").write_text(text)
    (root / "link").mkdir()
    (root / "link" / "org.yaml").write_text("name: x\nworkspaces:\n  - !include out.yaml\n")
    (root / "link" / "out.yaml").symlink_to("/etc/hostname")
    server = await make_server(org_templates_dir=str(root))
    async with connect(server, ADMIN_TOKEN) as admin:
        for name in ("circle", "escape", "link"):
            answer = await post(admin, {"dir": name})
            assert refusal(answer) == (400, "org template expansion failed")
            assert answer.json()["problems"][0]["line"] == 3
            assert str(tmp_path) not in answer.text
        assert await tree(admin) == {}


@pytest.mark.parametrize("megabytes", [6, 11])
async def test_a_body_that_is_too_large(admin: httpx.AsyncClient, megabytes: int) -> None:
    answer = await post(admin, {"yaml": "x" * megabytes * 1024 * 1024})
    assert answer.status_code == 413
    assert answer.json()["error"] == "request body too large"


async def test_a_body_that_is_no_json(admin: httpx.AsyncClient) -> None:
    for content in (b"{", b"\xff\xfe"):
        answer = await admin.post("/org/import", content=content)
        assert refusal(answer) == (400, "invalid request body")
    answer = await admin.post("/org/import", content=b"\xff", headers={"content-type": "text/yaml"})
    assert refusal(answer) == (400, "invalid request body")


@pytest.mark.parametrize("token", ["", "nonsense"])
async def test_importing_needs_an_admin(server: Server, token: str) -> None:
    async with connect(server, token) as client:
        assert (await post(client, {"template": TEAM})).status_code == 401
        assert (await client.get("/org/templates")).status_code == 401


# --- the environment an organization asks for ---


async def test_required_names_must_have_a_value(admin: httpx.AsyncClient) -> None:
    body = {"template": {**TEAM, "required_env": ["A_KEY", {"any_of": ["B_KEY", "C_KEY"]}]}}
    refused = await post(admin, body)
    assert refusal(refused) == (412, "missing required environment variables")
    assert refused.json()["missing_env"] == ["A_KEY", {"any_of": ["B_KEY", "C_KEY"]}]
    await admin.post("/settings/secrets", json={"key": "A_KEY", "value": "v"})
    await admin.post("/settings/secrets", json={"key": "C_KEY", "value": "v"})
    assert (await post(admin, body)).status_code == 201


async def test_force_skips_the_check(admin: httpx.AsyncClient) -> None:
    assert (
        await post(admin, {"template": {**TEAM, "required_env": ["A_KEY"]}, "force": True})
    ).status_code == 201


async def test_a_role_may_bring_what_it_requires(admin: httpx.AsyncClient) -> None:
    role = {"name": "Top", "required_env": ["A_KEY"], "secrets": {"A_KEY": "v"}}
    other = {"name": "Other"}
    assert (await post(admin, {"template": {"name": "x", "workspaces": [role, other]}})).status_code == 201


# --- size and races ---


def wide(count: int) -> dict[str, Any]:
    children = [{"name": f"Role {n}", "role": "Does work", "secrets": {"K": "v"}} for n in range(count - 1)]
    return {"name": "Wide", "workspaces": [{"name": "Top", "children": children}]}


async def test_a_hundred_roles_take_as_many_statements_as_ten(
    admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = asyncpg.Connection._execute
    seen: list[str] = []

    async def noted(connection: Any, query: str, *args: Any, **options: Any) -> Any:
        seen.append(query)
        return await execute(connection, query, *args, **options)

    monkeypatch.setattr(asyncpg.Connection, "_execute", noted)
    counts = []
    for size in (10, 100):
        org = wide(size)
        org["workspaces"][0]["name"] = f"Top {size}"
        seen.clear()
        assert (await post(admin, {"template": org})).json()["created_count"] == size
        counts.append(len(seen))
    assert 5 < counts[0] == counts[1] < 30


async def test_one_import_at_a_time(make_server: MakeServer) -> None:
    one, two = await make_server(), await make_server()
    async with connect(one, ADMIN_TOKEN) as first, connect(two, ADMIN_TOKEN) as second:
        async with one.db.connection() as holder:
            await holder.execute("SELECT pg_advisory_lock(x'494d504f'::int)")
            assert refusal(await post(second, {"template": TEAM})) == (409, "org import already running")
            await holder.execute("SELECT pg_advisory_unlock_all()")
        answers = await asyncio.gather(*(post(c, {"template": wide(40)}) for c in (first, second) * 2))
        assert {answer.status_code for answer in answers} <= {201, 409}
        assert len(await tree(first)) == 40


async def test_a_name_taken_during_the_import_is_matched_on_the_second_look(
    admin: httpx.AsyncClient, server: Server
) -> None:
    """The import waits for the other writer's row, then finds it instead of doubling it."""
    async with server.db.connection() as other:
        transaction = other.transaction()
        await transaction.start()
        taken = uuid.uuid4()
        await other.execute("INSERT INTO workspaces (id, name) VALUES ($1, 'Captain & Co')", taken)
        running = asyncio.create_task(post(admin, {"template": TEAM}))
        async with server.db.connection() as watcher:
            await wait_for(
                lambda: watcher.fetchval(
                    "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
                    " AND wait_event_type = 'Lock')"
                )
            )
        await transaction.commit()
        answer = await running
    assert answer.status_code == 201, answer.text
    assert answer.json()["workspaces"][0] == {
        "id": str(taken),
        "name": "Captain & Co",
        "tier": 3,
        "skipped": True,
    }
    assert answer.json()["created_count"] == 3


async def test_a_tree_that_fails_leaves_the_earlier_ones_and_says_so(
    admin: httpx.AsyncClient, server: Server
) -> None:
    async with server.db.transaction() as tx:
        await tx.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN IF NEW.name = 'Second child' THEN RETURN NULL; END IF; RETURN NEW; END $$"
        )
        await tx.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON workspaces FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    roots = [{"name": "First"}, {"name": "Second", "children": [{"name": "Second child"}]}, {"name": "Third"}]
    answer = await post(admin, {"template": {"name": "x", "workspaces": roots}})
    assert answer.status_code == 207
    assert answer.json()["error"].startswith("failed to create Second:")
    assert answer.json()["count"] == 1
    assert list(await tree(admin)) == ["First"]
