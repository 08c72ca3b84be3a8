from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from uuid import uuid4

import pytest
from msgspec import structs

from molecule_ai.provisioners.base import Handle, WorkspaceAccess
from molecule_ai.provisioners.errors import StartFailed
from molecule_ai.provisioners.local import scan
from molecule_ai.provisioners.local.identity import boot_id
from molecule_ai.provisioners.local.layout import layout_of
from molecule_ai.provisioners.process import ProcessProvisioner

from .backends import PLATFORM_URL
from .conftest import ask, make_launch, wait_for

CONTRACT_NAMES = {
    "WORKSPACE_ID", "WORKSPACE_CONFIG_PATH", "PLATFORM_URL", "MOLECULE_URL", "TIER", "PLUGINS_DIR",
    "MOLECULE_MODEL", "MODEL", "MOLECULE_AGENT_ROLE", "PARENT_ID", "MOLECULE_WORKSPACE_TOKEN",
    "MOLECULE_WORKSPACE_NAME",
}  # fmt: skip
OWN_NAMES = {
    "PATH", "HOME", "LANG", "TMPDIR", "MOLECULE_INSTANCE_ID", "CONFIGS_DIR", "WORKSPACE_DIR",
    "AGENT_ORPHAN_TIMEOUT", "AGENT_LISTEN_FD", "AGENT_URL", "MOLECULE_HOME_ID",
}  # fmt: skip


async def test_a_started_agent_answers_in_a_session_of_its_own(
    provisioner: ProcessProvisioner, runtime: str
) -> None:
    handle = await provisioner.start(make_launch(runtime, tier=1))
    said = await ask(handle)
    assert said["pid"] == said["session"] == handle.pid
    assert said["niceness"] == 10
    assert await provisioner.is_running(handle)


async def test_the_environment_holds_what_the_contract_lists_and_nothing_of_the_server(
    provisioner: ProcessProvisioner, runtime: str, canary: str
) -> None:
    launch = make_launch(
        runtime,
        role="lead",
        model="offline:demo",
        parent_id=uuid4(),
        env={
            "API_KEY": "secret",
            "PLATFORM_URL": "http://evil.example.com",
            "LD_PRELOAD": "/evil.so",
            "": "x",
        },
    )
    handle = await provisioner.start(launch)
    said = (await ask(handle))["environment"]
    assert said.keys() - {"LC_CTYPE"} == CONTRACT_NAMES | OWN_NAMES | {"API_KEY"}
    assert said["PLATFORM_URL"] == said["MOLECULE_URL"] == PLATFORM_URL
    assert said["API_KEY"] == "secret"
    assert said["PARENT_ID"] == str(launch.parent_id)
    assert said["MOLECULE_WORKSPACE_TOKEN"] == launch.token
    marks = shown(handle, "environ")
    assert canary.encode() not in marks
    assert f"MOLECULE_INSTANCE_ID={launch.instance_id}".encode() in marks
    assert canary not in str(said)


async def test_secrets_of_a_forked_agent_are_not_in_the_list_of_processes(
    provisioner: ProcessProvisioner,
) -> None:
    launch = make_launch("forked", env={"API_KEY": "secret-value"})
    handle = await provisioner.start(launch)
    for name in ("environ", "cmdline"):
        content = shown(handle, name)
        assert b"secret-value" not in content
        assert launch.token.encode() not in content
    assert str(launch.workspace_id).encode() in shown(handle, "cmdline")


async def test_an_agent_inherits_its_socket_its_log_and_nothing_else(
    provisioner: ProcessProvisioner, runtime: str
) -> None:
    secret_file = os.open(__file__, os.O_RDONLY)
    os.set_inheritable(secret_file, True)
    try:
        handle = await provisioner.start(make_launch(runtime))
    finally:
        os.close(secret_file)
    opened = (await ask(handle))["open_files"]
    kinds = sorted(path.partition(":")[0] if path.startswith("socket") else path for path in opened)
    log = next(path for path in kinds if path.endswith("agent.log"))
    assert kinds.count(log) == 2
    # The listener and the connection of this question.
    assert [path for path in kinds if path != log] == ["/dev/null", "socket", "socket"]


async def test_the_operators_own_directory_is_used_as_the_workspace(
    provisioner: ProcessProvisioner, tmp_path: Path
) -> None:
    own = tmp_path / "project"
    own.mkdir()
    launch = make_launch(workspace_dir=str(own), workspace_access=WorkspaceAccess.READ_WRITE)
    said = await ask(await provisioner.start(launch))
    assert said["directory"] == said["environment"]["WORKSPACE_DIR"] == str(own)
    for broken in (
        structs.replace(launch, workspace_access=WorkspaceAccess.READ_ONLY),
        structs.replace(launch, workspace_dir="/nowhere/at/all"),
    ):
        with pytest.raises(StartFailed):
            await provisioner.start(structs.replace(broken, instance_id=uuid4()))


async def test_stop_ends_the_agent_and_what_it_started(provisioner: ProcessProvisioner, runtime: str) -> None:
    launch = make_launch(runtime, env={"STUB_CHILD": "1"})
    handle = await provisioner.start(launch)
    await ask(handle)
    assert len(scan.marked(provisioner.home_id)) == 2
    await provisioner.stop(launch.workspace_id, handle)
    assert not await provisioner.is_running(handle)
    assert scan.marked(provisioner.home_id) == []
    await provisioner.stop(launch.workspace_id, handle)


async def test_an_agent_that_ignores_the_request_to_end_is_killed(
    provisioner: ProcessProvisioner, runtime: str
) -> None:
    launch = make_launch(runtime, env={"STUB_STUBBORN": "1"})
    handle = await provisioner.start(launch)
    await ask(handle)
    await provisioner.stop(launch.workspace_id, handle, grace=0.2)
    assert not await provisioner.is_running(handle)


async def test_stop_without_a_handle_ends_whatever_runs_for_the_workspace(
    provisioner: ProcessProvisioner, runtime: str
) -> None:
    launch, other = make_launch(runtime), make_launch(runtime)
    handle, untouched = await provisioner.start(launch), await provisioner.start(other)
    await provisioner.stop(launch.workspace_id, None)
    assert not await provisioner.is_running(handle)
    assert await provisioner.is_running(untouched)


async def test_a_dead_agent_is_not_running_even_while_nobody_has_reaped_it(
    provisioner: ProcessProvisioner, runtime: str
) -> None:
    handle = await provisioner.start(make_launch(runtime))
    assert handle.pid
    os.kill(handle.pid, signal.SIGKILL)
    await wait_for(lambda: not Path(f"/proc/{handle.pid}").exists())
    assert not await provisioner.is_running(handle)


async def test_a_handle_of_another_start_time_or_boot_names_no_living_process(
    provisioner: ProcessProvisioner,
) -> None:
    launch = make_launch()
    handle = await provisioner.start(launch)
    assert handle.started_at
    earlier = structs.replace(handle, started_at=handle.started_at - 1)
    other_boot = structs.replace(handle, boot_id="another")
    for stale in (earlier, other_boot):
        assert not await provisioner.is_running(stale)
        await provisioner.stop(uuid4(), stale, grace=0)
    assert await provisioner.is_running(handle)


async def test_a_reused_process_id_is_never_signalled(provisioner: ProcessProvisioner) -> None:
    me = Handle(
        instance_id=uuid4(), url="", node=provisioner.node, pid=os.getpid(), started_at=1.0,
        boot_id=boot_id(),
    )  # fmt: skip
    await provisioner.stop(uuid4(), me, grace=0)
    assert not await provisioner.is_running(me)


async def test_a_start_takes_the_place_of_the_workspaces_other_agent(
    provisioner: ProcessProvisioner, runtime: str
) -> None:
    launch = make_launch(runtime)
    first = await provisioner.start(launch)
    second = await provisioner.start(structs.replace(launch, instance_id=uuid4()))
    assert not await provisioner.is_running(first)
    assert await provisioner.is_running(second)


async def test_the_handle_is_recorded_before_anything_of_the_agent_runs(
    provisioner: ProcessProvisioner, runtime: str
) -> None:
    launch = make_launch(runtime)
    recorded = []

    async def record(handle: Handle) -> None:
        assert await provisioner.is_running(handle)
        recorded.append((handle, await provisioner.logs(launch.workspace_id)))

    handle = await provisioner.start(launch, record)
    assert recorded == [(handle, "")]
    assert (await ask(handle))["environment"]["AGENT_URL"] == handle.url
    await provisioner.start(launch, record)
    assert recorded[1:] == [(handle, "stub is up\n")]


async def test_an_agent_that_cannot_be_recorded_never_lives(
    provisioner: ProcessProvisioner, runtime: str
) -> None:
    launch = make_launch(runtime)

    async def record(handle: Handle) -> None:
        raise ConnectionError("the database is away")

    with pytest.raises(ConnectionError):
        await provisioner.start(launch, record)
    await wait_for(lambda: scan.marked(provisioner.home_id) == [])
    assert await provisioner.logs(launch.workspace_id) == ""


async def test_what_an_agent_prints_is_its_log(provisioner: ProcessProvisioner, runtime: str) -> None:
    launch = make_launch(runtime)
    await ask(await provisioner.start(launch))
    assert await provisioner.logs(launch.workspace_id) == "stub is up\n"
    assert await provisioner.logs(launch.workspace_id, 3) == "up\n"
    assert await provisioner.logs(uuid4()) == ""
    assert layout_of(provisioner.home, launch.workspace_id).output.stat().st_mode & 0o777 == 0o600


async def test_an_agent_that_ends_at_once_is_started_and_then_not_running(
    provisioner: ProcessProvisioner, runtime: str
) -> None:
    launch = make_launch(runtime, env={"STUB_EXIT": "3"})
    handle = await provisioner.start(launch)

    async def has_ended() -> bool:
        return not await provisioner.is_running(handle)

    await wait_for(has_ended)
    assert "stub is up" in await provisioner.logs(launch.workspace_id)


async def test_agents_outlive_the_zygote_and_the_next_one_gets_a_new_zygote(
    provisioner: ProcessProvisioner,
) -> None:
    first = await provisioner.start(make_launch("forked"))
    assert first.pid
    zygote = parent_of(first.pid)
    os.kill(zygote, signal.SIGKILL)
    await wait_for(lambda: parent_of(first.pid or 0) != zygote)
    second = await provisioner.start(make_launch("forked"))
    assert second.pid
    assert (await ask(first))["pid"] == first.pid
    assert (await ask(second))["pid"] == second.pid
    assert "http.server" in zygote_command(parent_of(second.pid))


async def test_without_a_usable_zygote_agents_get_an_interpreter_of_their_own(tmp_path: Path) -> None:
    provisioner = ProcessProvisioner(
        tmp_path,
        PLATFORM_URL,
        entry=str(Path(__file__).with_name("agent_stub.py")),
        preload=lambda _: ("no.such.module",),
    )
    launch = make_launch()
    handle = await provisioner.start(launch)
    assert (await ask(handle))["pid"] == handle.pid
    await provisioner.remove(launch.workspace_id, handle, purge=True)
    await provisioner.close()


async def test_a_running_command_is_no_orphan_while_its_server_lives(
    provisioner: ProcessProvisioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = provisioner.files(uuid4())
    monkeypatch.setattr("molecule_ai.provisioners.process.YOUNG_SECONDS", 0.0)
    command = asyncio.ensure_future(files.exec(["sleep", "600"]))
    await wait_for(lambda: len(scan.marked(provisioner.home_id)) == 1)
    assert await provisioner.find_orphans({}) == []
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await command
    assert scan.marked(provisioner.home_id) == []


def shown(handle: Handle, name: str) -> bytes:
    """What everybody can see of an agent's process."""
    return Path(f"/proc/{handle.pid}/{name}").read_bytes()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


def zygote_command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
