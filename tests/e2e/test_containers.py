"""A real server and a real agent in a container: all of its life, and the death of its server."""

from __future__ import annotations

import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from tests.agents import envelope
from tests.containers.podman import Podman
from tests.server.workspaces.org import Org, organization
from tests.support import free_port, wait_for

pytestmark = [pytest.mark.slow]

PATIENCE = 120.0  # every step starts containers, on a machine that does much else


async def test_an_agent_in_a_container_lives_sleeps_outlives_its_server_and_leaves_nothing(
    dsn: str, containers: Podman, tmp_path: Path
) -> None:
    port = free_port()

    def a_server() -> AbstractAsyncContextManager[Org]:
        return organization(
            dsn,
            1,
            ends_agents=False,
            respawn=False,
            port=port,
            molecule_home=tmp_path / "home",
            provisioner="docker",
            docker_host=containers.url,
            docker_network="molecule-e2e",
            workspace_images=f"echo={containers.image}",
            bind_addr="0.0.0.0",
        )

    async with a_server() as org:
        workspace_id = await org.add("scout", tier=2)
        row = await org.until(workspace_id, "online", timeout=PATIENCE)
        assert handle_of(row)["image_digest"]
        assert await answer(org, workspace_id, "are you there?")
        console = await org.client.get(f"/workspaces/{workspace_id}/console")
        assert console.status_code == 200, console.text
        assert "output" in console.json()

        await org.verb(workspace_id, "hibernate")
        await org.until(workspace_id, "hibernated", timeout=PATIENCE)
        assert running(containers, workspace_id) == []
        assert await answer(org, workspace_id, "wake up")
        await org.until(workspace_id, "online", timeout=PATIENCE)
        (before,) = running(containers, workspace_id)
        await org.served.stop(signal.SIGKILL)

    async with a_server() as org:
        assert await answer(org, workspace_id, "still there?")
        row = await org.until(workspace_id, "online", timeout=PATIENCE)
        assert running(containers, workspace_id) == [before]
        assert handle_of(row)["container_id"].startswith(before)

        removed = await org.client.delete(
            f"/workspaces/{workspace_id}?confirm=true&purge=true", headers={"X-Confirm-Name": "scout"}
        )
        assert removed.status_code == 200, removed.text
        await wait_for(lambda: listed(containers, "ps", "--all", workspace_id) == [], PATIENCE, interval=0.2)
        await wait_for(
            lambda: listed(containers, "volume ls", "", workspace_id) == [], PATIENCE, interval=0.2
        )


async def answer(org: Org, workspace_id: UUID, text: str) -> bool:
    """Whether the agent repeats what it is told, however long it takes to wake."""
    heard = []

    async def answered() -> Any:
        said = await org.client.post(f"/workspaces/{workspace_id}/a2a", json=envelope(text))
        heard.append(f"{said.status_code} {said.text}")
        return said if said.status_code == 200 else None

    try:
        return text in (await wait_for(answered, PATIENCE, interval=0.2)).text
    except TimeoutError as late:
        raise AssertionError(f"no answer but {heard[-1]}\n{org.served.log()[-4000:]}") from late


def handle_of(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(row["handle"])
    return found


def running(podman: Podman, workspace_id: UUID) -> list[str]:
    return listed(podman, "ps", "--filter=status=running", workspace_id)


def listed(podman: Podman, command: str, option: str, workspace_id: UUID) -> list[str]:
    """Names or ids of what carries the label of a workspace."""
    options = [option] if option else []
    mark = f"label=molecule.workspace={workspace_id}"
    return podman.run(*command.split(), *options, "--quiet", "--filter", mark).split()
