"""`POST /admin/workspace-images/refresh`, as callers see it."""

from __future__ import annotations

import fcntl
from pathlib import Path

import httpx
import pytest

from molecule_ai.server.app import Server
from tests.conftest import ADMIN_TOKEN, MakeServer, connect
from tests.containers.podman import Podman
from tests.support import add_token, add_workspace, bearer

REFRESH = "/admin/workspace-images/refresh"


@pytest.fixture
async def docker_server(make_server: MakeServer, tmp_path: Path) -> Server:
    """A server whose container engine is away."""
    return await make_server(provisioner="docker", docker_host=f"unix://{tmp_path}/nobody.sock")


async def test_only_an_operator_may(server: Server, anonymous: httpx.AsyncClient) -> None:
    assert (await anonymous.post(REFRESH)).status_code == 401
    token = await add_token(server, await add_workspace(server))
    assert (await anonymous.post(REFRESH, headers=bearer(token))).status_code in (401, 403)


async def test_without_containers_there_is_nothing_to_refresh(admin: httpx.AsyncClient) -> None:
    answer = await admin.post(REFRESH)
    assert (answer.status_code, answer.json()["code"]) == (501, "NO_DOCKER")


async def test_an_unknown_runtime_is_told_the_known_ones(docker_server: Server) -> None:
    async with connect(docker_server, ADMIN_TOKEN) as admin:
        answer = await admin.post(f"{REFRESH}?runtime=cobol")
        assert answer.status_code == 400
        assert answer.json()["error"] == "unknown runtime: cobol"
        assert "langgraph" in answer.json()["known_runtimes"]
        assert "external" not in answer.json()["known_runtimes"]
        assert (await admin.post(f"{REFRESH}?recreate=perhaps")).status_code == 400


async def test_an_engine_that_is_away_is_named_with_what_was_done(docker_server: Server) -> None:
    async with connect(docker_server, ADMIN_TOKEN) as admin:
        answer = await admin.post(f"{REFRESH}?runtime=echo")
    assert answer.status_code == 500
    assert answer.json()["error"] == "the container engine cannot be reached"
    assert answer.json()["partial_result"] == {
        "pulled": [],
        "failed": ["echo"],
        "recreated": [],
        "deferred": [],
    }


async def test_one_refresh_runs_at_a_time(docker_server: Server, tmp_path: Path) -> None:
    with (tmp_path / "home" / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with connect(docker_server, ADMIN_TOKEN) as admin:
            answer = await admin.post(f"{REFRESH}?runtime=echo")
    assert (answer.status_code, answer.json()["code"]) == (409, "REFRESH_RUNNING")


async def test_an_image_that_no_registry_has_is_listed_and_not_fatal(
    make_server: MakeServer, containers: Podman
) -> None:
    server = await make_server(
        provisioner="docker",
        docker_host=containers.url,
        workspace_image_template="localhost:1/no-such/{runtime}:{version}",
    )
    async with connect(server, ADMIN_TOKEN) as admin:
        answer = await admin.post(f"{REFRESH}?runtime=echo")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"pulled": [], "failed": ["echo"], "recreated": [], "deferred": []}
