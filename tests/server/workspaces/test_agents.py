"""Real agents: the reconciler, the process provisioner and the runtime, two replicas at a time."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from tests.server.workspaces.org import Org, agents, environment, has_one_agent, organization
from tests.support import free_port, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.processes]


async def test_an_agent_lives_its_whole_life(dsn: str) -> None:
    async with organization(dsn) as org:
        workspace_id = await org.add("scout")
        row = await org.until(workspace_id, "online")
        assert row["url"].startswith("http://127.0.0.1:")
        assert has_one_agent(workspace_id)
        first = row["instance_id"]
        async with httpx.AsyncClient() as direct:
            assert (await direct.get(row["url"] + "/health")).status_code == 200

        async with org.nobody_reconciles(workspace_id):
            for _ in range(10):
                await org.verb(workspace_id, "restart")
        row = await org.until(workspace_id, "online")
        assert row["instance_id"] != first
        assert has_one_agent(workspace_id)
        assert await org.events(workspace_id, "token.mint") == 2  # the creation, and one for all ten

        await org.verb(workspace_id, "pause")
        await wait_for(lambda: not agents(workspace_id))
        assert (await org.row(workspace_id))["url"] == ""
        await org.verb(workspace_id, "resume")
        await org.until(workspace_id, "online")

        await org.put_to_sleep(workspace_id)
        assert not agents(workspace_id)
        await org.verb(workspace_id, "wake", 202)
        await org.until(workspace_id, "online")
        assert has_one_agent(workspace_id)


async def test_a_killed_agent_comes_back(dsn: str) -> None:
    async with organization(dsn) as org:
        workspace_id = await org.add("scout")
        first = (await org.until(workspace_id, "online"))["instance_id"]
        os.kill(agents(workspace_id)[0], signal.SIGKILL)

        async def is_replaced() -> bool:
            row = await org.row(workspace_id)
            return row["status"] == "online" and row["instance_id"] != first

        await wait_for(is_replaced, 60)
        assert await org.events(workspace_id, "WORKSPACE_OFFLINE") == 1
        assert has_one_agent(workspace_id)


async def test_a_secret_that_changes_restarts_the_agent_once(dsn: str) -> None:
    async with organization(dsn) as org:
        workspace_id = await org.add("scout")
        before = (await org.until(workspace_id, "online"))["instance_id"]
        for n in range(10):
            body = {"key": f"NAME_{n}", "value": f"canary-{n}"}
            assert (await org.client.post(f"/workspaces/{workspace_id}/secrets", json=body)).status_code < 300
        row = await org.until(workspace_id, "online")
        assert row["instance_id"] != before
        assert await org.events(workspace_id, "token.mint") == 2


async def test_a_workspace_without_what_it_requires_fails_with_the_names(dsn: str, tmp_path: Path) -> None:
    template = tmp_path / "templates" / "needy"
    template.mkdir(parents=True)
    (template / "config.yaml").write_text("runtime: echo\nruntime_config: {required_env: [ACME_KEY]}\n")
    async with organization(dsn, configs_dir=str(template.parent)) as org:
        workspace_id = await org.add("needy", template="needy")
        row = await org.until(workspace_id, "failed")
        assert row["status_reason"] == "MISSING_ENV"
        assert "ACME_KEY" in row["last_sample_error"]
        body = {"key": "ACME_KEY", "value": "here"}
        await org.client.post(f"/workspaces/{workspace_id}/secrets", json=body)
        await org.until(workspace_id, "online")


async def test_deleted_agents_are_stopped_and_their_files_wait(dsn: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with organization(dsn, molecule_home=str(home)) as org:
        kept, purged = await org.add("kept"), await org.add("purged")
        for workspace_id, name, query in ((kept, "kept", ""), (purged, "purged", "?purge=true")):
            await org.until(workspace_id, "online")
            answer = await org.client.delete(
                f"/workspaces/{workspace_id}{query}", headers={"X-Confirm-Name": name}
            )
            assert answer.json()["cascade_deleted"] == 0
        await org.until(kept, "removed")

        async def is_purged() -> bool:
            return purged not in [row["id"] for row in await org.rows()]

        await wait_for(is_purged)
        assert not agents(kept)
        assert not agents(purged)
        assert (home / "workspaces" / str(kept) / "configs" / "config.yaml").exists()
        assert not (home / "workspaces" / str(purged)).exists()
        assert (await org.client.get(f"/workspaces/{kept}")).status_code == 410
        assert (await org.client.get(f"/workspaces/{purged}")).status_code == 404


async def test_a_message_wakes_who_sleeps_and_is_answered(dsn: str) -> None:
    async with organization(dsn) as org:
        workspace_id = await org.add("scout")
        await org.until(workspace_id, "online")
        await org.put_to_sleep(workspace_id)
        said = {"role": "user", "messageId": "m1", "parts": [{"kind": "text", "text": "are you there"}]}
        body = {"method": "message/send", "params": {"message": said}}

        async def is_answered() -> bool:
            answer = await org.client.post(f"/workspaces/{workspace_id}/a2a", json=body)
            return answer.status_code == 200 and "are you there" in answer.text

        assert not await is_answered()
        await wait_for(is_answered, 60, interval=0.2)


CRASHES = [
    ("reconciler.intent", None),
    ("reconciler.started", None),
    ("reconciler.recorded", None),
    ("reconciler.intent:2", "restart"),
    ("reconciler.started:2", "restart"),
    ("reconciler.stopped", "restart"),
    ("lifecycle.wished", "restart"),
    ("reconciler.stopped", "pause"),
    ("reconciler.settled", "pause"),
    ("reconciler.stopped", "hibernate"),
    ("reconciler.settled", "hibernate"),
]
ENDS = {None: "online", "restart": "online", "pause": "paused", "hibernate": "hibernated"}


@pytest.mark.parametrize(("point", "verb"), CRASHES)
async def test_a_server_killed_at_any_step_leaves_one_agent_or_none(
    dsn: str, tmp_path: Path, point: str, verb: str | None
) -> None:
    port, home = free_port(), str(tmp_path / "home")
    settings = {"port": port, "molecule_home": home}
    async with organization(
        dsn, 1, ends_agents=False, respawn=False, molecule_failpoints=point, **settings
    ) as org:
        workspace_id = await _act(org, verb)
        await wait_for(lambda: not org.served.worker_pids(), 60)
        await org.let_leases_end()
    async with organization(dsn, 2, **settings) as org:
        if point == "lifecycle.wished":  # nothing was committed: the caller asks again
            await org.verb(workspace_id, str(verb))
        await org.until(workspace_id, ENDS[verb])
        expected = 1 if ENDS[verb] == "online" else 0
        await wait_for(lambda: len(agents(workspace_id)) == expected, 30)
        if expected:
            assert await _is_the_recorded_one(org, workspace_id)


async def _act(org: Org, verb: str | None) -> UUID:
    workspace_id = await org.add("scout")
    if verb is not None:
        await org.until(workspace_id, "online")
        with suppress(httpx.HTTPError):
            await org.client.post(f"/workspaces/{workspace_id}/{verb}")
    return workspace_id


async def _is_the_recorded_one(org: Org, workspace_id: UUID) -> bool:
    instance = str((await org.row(workspace_id))["instance_id"]).encode()
    [pid] = agents(workspace_id)
    return b"MOLECULE_INSTANCE_ID=" + instance in environment(pid)
