"""What every back end promises, as `Provisioner` has it; files are in `test_files.py`."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from msgspec import structs

from molecule_ai.provisioners.base import Handle, Root
from molecule_ai.provisioners.errors import Elsewhere, FileMissing, NoConfigSource

from .backends import PLATFORM_URL, Backend, ask, make_launch
from .conftest import wait_for

CONTRACT_NAMES = {
    "WORKSPACE_ID", "WORKSPACE_CONFIG_PATH", "PLATFORM_URL", "MOLECULE_URL", "TIER", "PLUGINS_DIR",
    "MOLECULE_MODEL", "MODEL", "MOLECULE_AGENT_ROLE", "PARENT_ID", "MOLECULE_WORKSPACE_TOKEN",
    "MOLECULE_WORKSPACE_NAME", "HOME", "PATH", "MOLECULE_INSTANCE_ID", "AGENT_URL",
}  # fmt: skip


async def test_a_started_agent_runs_and_has_the_environment_of_the_contract(
    backend: Backend, canary: str
) -> None:
    launch = make_launch(
        role="lead",
        model="offline:demo",
        parent_id=uuid4(),
        env={"API_KEY": "secret", "PLATFORM_URL": "http://evil.example.com", "LD_PRELOAD": "/evil.so"},
    )
    handle = await backend.provisioner.start(launch)
    said = (await ask(handle))["environment"]
    assert await backend.provisioner.is_running(handle)
    assert handle.isolation
    assert said.keys() >= CONTRACT_NAMES | {"API_KEY"}
    assert said["PLATFORM_URL"] == said["MOLECULE_URL"] == PLATFORM_URL
    assert said["WORKSPACE_ID"] == str(launch.workspace_id)
    assert said["MOLECULE_WORKSPACE_TOKEN"] == launch.token
    assert said["API_KEY"] == "secret"
    assert "LD_PRELOAD" not in said
    assert canary not in str(said)


async def test_files_of_a_launch_are_written_once_and_credentials_are_private(backend: Backend) -> None:
    provisioner = backend.provisioner
    launch = make_launch(inbound_secret="inbound", config_files={"prompts/system.md": b"first"})
    await provisioner.start(launch)
    files = provisioner.files(launch.workspace_id)
    looked = await files.exec(
        ["sh", "-c", "ls -l .auth_token .platform_inbound_secret; cat .auth_token .platform_inbound_secret"],
        root=Root.CONFIGS,
    )
    assert looked.stdout.count(b"-rw-------") == 2
    assert looked.stdout.endswith(launch.token.encode() + b"inbound")
    again = structs.replace(
        launch, instance_id=uuid4(), config_files={"prompts/system.md": b"second"}, inbound_secret=None
    )
    await provisioner.start(again)
    assert await files.read(Root.CONFIGS, "prompts/system.md") == b"first"
    await provisioner.start(structs.replace(again, instance_id=uuid4(), overwrite=True))
    assert await files.read(Root.CONFIGS, "prompts/system.md") == b"second"


async def test_a_launch_without_any_config_is_refused(backend: Backend) -> None:
    launch = structs.replace(make_launch(), config_files={})
    with pytest.raises(NoConfigSource):
        await backend.provisioner.start(launch)
    assert await backend.living() == 0


async def test_a_session_is_forgotten_when_asked(backend: Backend) -> None:
    provisioner, launch = backend.provisioner, make_launch()
    files = provisioner.files(launch.workspace_id)
    await files.write(Root.CONFIGS, ".agent_snapshot.json", b"{}")
    await files.write(Root.AGENT_HOME, ".claude/sessions/one", b"{}")
    await provisioner.start(launch)
    assert await files.stat(Root.CONFIGS, ".agent_snapshot.json")
    await provisioner.start(structs.replace(launch, instance_id=uuid4(), reset_session=True))
    assert await files.stat(Root.CONFIGS, ".agent_snapshot.json") is None
    assert await files.stat(Root.AGENT_HOME, ".claude/sessions") is None


async def test_stop_ends_the_agent_and_what_it_started(backend: Backend) -> None:
    launch = make_launch(env={"STUB_CHILD": "1"})
    handle = await backend.provisioner.start(launch)
    await ask(handle)
    await backend.provisioner.stop(launch.workspace_id, handle)
    assert not await backend.provisioner.is_running(handle)
    assert await backend.living() == 0
    await backend.provisioner.stop(launch.workspace_id, handle)


async def test_an_agent_that_ignores_the_request_to_end_is_killed(backend: Backend) -> None:
    launch = make_launch(env={"STUB_STUBBORN": "1"})
    handle = await backend.provisioner.start(launch)
    await ask(handle)
    await backend.provisioner.stop(launch.workspace_id, handle, grace=0.2)
    assert not await backend.provisioner.is_running(handle)


async def test_stop_without_a_handle_ends_whatever_runs_for_the_workspace(backend: Backend) -> None:
    launch, other = make_launch(), make_launch()
    handle = await backend.provisioner.start(launch)
    untouched = await backend.provisioner.start(other)
    await backend.provisioner.stop(launch.workspace_id, None, grace=0)
    assert not await backend.provisioner.is_running(handle)
    assert await backend.provisioner.is_running(untouched)


async def test_an_agent_of_another_node_is_not_judged(backend: Backend) -> None:
    foreign = Handle(
        instance_id=uuid4(), url="", node="elsewhere", pid=1, started_at=1.0, boot_id="x", container_id="x"
    )
    with pytest.raises(Elsewhere):
        await backend.provisioner.is_running(foreign)
    with pytest.raises(Elsewhere):
        await backend.provisioner.stop(uuid4(), foreign)


async def test_a_start_takes_the_place_of_the_workspaces_other_agent(backend: Backend) -> None:
    launch = make_launch()
    first = await backend.provisioner.start(launch)
    second = await backend.provisioner.start(structs.replace(launch, instance_id=uuid4()))
    assert not await backend.provisioner.is_running(first)
    assert await backend.provisioner.is_running(second)


async def test_a_repeated_start_returns_the_agent_of_the_first_one(backend: Backend) -> None:
    launch = make_launch()
    first = await backend.provisioner.start(launch)
    await ask(first)
    next_server = backend.make(backend.home)
    try:
        assert await next_server.start(launch) == first
        assert await next_server.is_running(first)
    finally:
        await next_server.close()


async def test_the_handle_is_recorded_before_anything_of_the_agent_runs(backend: Backend) -> None:
    provisioner, launch = backend.provisioner, make_launch()
    recorded = []

    async def record(handle: Handle) -> None:
        assert await provisioner.is_running(handle)
        recorded.append((handle, await provisioner.logs(launch.workspace_id)))

    handle = await provisioner.start(launch, record)
    assert recorded == [(handle, "")]
    await ask(handle)
    await provisioner.start(launch, record)
    assert recorded[1:] == [(handle, "stub is up\n")]


async def test_an_agent_that_cannot_be_recorded_never_lives(backend: Backend) -> None:
    launch = make_launch()

    async def record(handle: Handle) -> None:
        raise ConnectionError("the database is away")

    with pytest.raises(ConnectionError):
        await backend.provisioner.start(launch, record)

    async def is_empty() -> bool:
        return await backend.living() == 0

    await wait_for(is_empty)
    assert await backend.provisioner.logs(launch.workspace_id) == ""


async def test_what_an_agent_prints_is_its_log_also_when_it_has_ended(backend: Backend) -> None:
    provisioner, launch = backend.provisioner, make_launch()
    handle = await provisioner.start(launch)
    await ask(handle)
    assert await provisioner.logs(launch.workspace_id) == "stub is up\n"
    assert await provisioner.logs(launch.workspace_id, 3) == "up\n"
    assert await provisioner.logs(uuid4()) == ""
    await provisioner.stop(launch.workspace_id, handle, grace=0)
    assert "stub is up" in await provisioner.logs(launch.workspace_id)


async def test_an_agent_that_ends_at_once_is_started_and_then_not_running(backend: Backend) -> None:
    launch = make_launch(env={"STUB_EXIT": "3"})
    handle = await backend.provisioner.start(launch)

    async def has_ended() -> bool:
        return not await backend.provisioner.is_running(handle)

    await wait_for(has_ended)
    assert "stub is up" in await backend.provisioner.logs(launch.workspace_id)
    await backend.provisioner.stop(launch.workspace_id, handle, grace=0)
    assert await backend.living() == 0


async def test_files_stay_after_a_removal_and_go_with_a_purge(backend: Backend) -> None:
    provisioner, launch = backend.provisioner, make_launch()
    handle = await provisioner.start(launch)
    await provisioner.remove(launch.workspace_id, handle, purge=False)
    assert not await provisioner.is_running(handle)
    files = provisioner.files(launch.workspace_id)
    assert await files.stat(Root.CONFIGS, "config.yaml")
    await provisioner.remove(launch.workspace_id, None, purge=True)
    with pytest.raises(FileMissing):
        await files.read(Root.CONFIGS, "config.yaml")
    await provisioner.remove(launch.workspace_id, None, purge=True)


async def test_other_installations_are_never_touched(backend: Backend, tmp_path: Path) -> None:
    other, launch = backend.make(tmp_path / "other"), make_launch()
    try:
        handle = await other.start(launch)
        await backend.provisioner.stop(launch.workspace_id, None, grace=0)
        assert await backend.provisioner.find_orphans({}) == []
        assert await other.is_running(handle)
    finally:
        await other.remove(launch.workspace_id, None, purge=True)
        await other.close()


async def test_what_nobody_expects_is_an_orphan_and_can_be_ended(backend: Backend) -> None:
    provisioner = backend.provisioner
    expected, unexpected = make_launch(), make_launch()
    kept = await provisioner.start(expected)
    lost = await provisioner.start(unexpected)
    rows = {expected.workspace_id: expected.instance_id, unexpected.workspace_id: uuid4()}
    assert await provisioner.find_orphans(rows) == []  # too young to be one

    async def orphans() -> bool:
        return len(await provisioner.find_orphans(rows)) == 1

    await wait_for(orphans)
    (orphan,) = await provisioner.find_orphans(rows)
    assert (orphan.workspace_id, orphan.instance_id) == (unexpected.workspace_id, unexpected.instance_id)
    with pytest.raises(Elsewhere):
        await provisioner.kill_orphan(structs.replace(orphan, node="elsewhere"))
    await provisioner.kill_orphan(orphan)
    await provisioner.kill_orphan(orphan)
    assert not await provisioner.is_running(lost)
    assert await provisioner.is_running(kept)
