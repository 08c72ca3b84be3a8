from __future__ import annotations

import json
import os
from pathlib import Path
from uuid import uuid4

import pytest

from molecule_ai.provisioners.base import WorkspaceAccess
from molecule_ai.provisioners.local import confinement
from molecule_ai.provisioners.local.layout import layout_of
from molecule_ai.provisioners.process import ProcessProvisioner

from .conftest import ask, make_launch, make_provisioner

needs_landlock = pytest.mark.skipif(confinement.version() == 0, reason="this kernel has no Landlock")


async def probes(
    provisioner: ProcessProvisioner, questions: list[str], runtime: str, **fields: object
) -> dict[str, str]:
    launch = make_launch(runtime, env={"STUB_PROBES": json.dumps(questions)}, **fields)
    answers: dict[str, str] = (await ask(await provisioner.start(launch)))["probes"]
    return answers


@pytest.fixture
def outside(provisioner: ProcessProvisioner, tmp_path: Path) -> list[str]:
    """What an agent has no business with: keys, other workspaces, the operator's files, the server."""
    other = layout_of(provisioner.home, uuid4())
    other.configs.mkdir(parents=True)
    kept = [provisioner.home / "secrets.key", other.configs / ".auth_token", tmp_path / "private"]
    for path in kept:
        path.write_text("secret")
    return [
        *(f"read:{path}" for path in (*kept, provisioner.home, provisioner.home / "workspaces")),
        *(f"write:{path}" for path in (*kept, provisioner.home / "new")),
        f"read:/proc/{os.getpid()}/environ",
        f"read:/proc/{os.getpid()}/mem",
    ]


@needs_landlock
async def test_an_agent_opens_nothing_of_the_installation_but_its_own(
    provisioner: ProcessProvisioner, runtime: str, outside: list[str]
) -> None:
    answers = await probes(provisioner, outside, runtime, tier=2)
    assert {path: said for path, said in answers.items() if said != "Permission denied"} == {}


@needs_landlock
async def test_an_agent_has_its_own_files_the_system_and_its_libraries(
    provisioner: ProcessProvisioner, runtime: str
) -> None:
    launch = make_launch(runtime, tier=1)
    here = layout_of(provisioner.home, launch.workspace_id)
    questions = [
        *(f"write:{folder}/new" for folder in (here.configs, here.workspace, here.plugins, here.temporary)),
        f"read:{here.configs}/.auth_token",
        f"read:{here.workspace}",
        "read:/etc/hosts",
        "read:/usr/bin",
        f"read:{json.__file__}",
        f"read:{pytest.__file__}",
        "read:/proc/self/status",
        "write:/dev/null",
    ]
    answers = await probes(provisioner, questions, runtime, tier=1, workspace_id=launch.workspace_id)
    assert {path: said for path, said in answers.items() if said != "ok"} == {}


@needs_landlock
async def test_the_operators_own_directory_is_open_to_its_agent(
    provisioner: ProcessProvisioner, tmp_path: Path
) -> None:
    (tmp_path / "project").mkdir()
    question = f"write:{tmp_path / 'project' / 'new'}"
    answers = await probes(
        provisioner, [question], "forked", tier=1,
        workspace_dir=str(tmp_path / "project"), workspace_access=WorkspaceAccess.READ_WRITE,
    )  # fmt: skip
    assert answers == {question: "ok"}


@pytest.mark.skipif(confinement.version() < 6, reason="this kernel does not scope signals")
async def test_an_agent_signals_nobody_outside(provisioner: ProcessProvisioner, runtime: str) -> None:
    question = f"signal:{os.getpid()}"
    assert await probes(provisioner, [question], runtime) == {question: "Operation not permitted"}


async def test_tier_4_and_an_operator_who_wants_it_open_the_host(
    provisioner: ProcessProvisioner, tmp_path: Path, outside: list[str]
) -> None:
    question = outside[0]
    assert await probes(provisioner, [question], "forked", tier=4) == {question: "ok"}
    await provisioner.end_all(grace=0)
    unconfined = make_provisioner(provisioner.home, confine=False)
    assert await probes(unconfined, [question], "forked", tier=1) == {question: "ok"}
    await unconfined.close()


async def test_the_handle_says_what_really_confines(provisioner: ProcessProvisioner) -> None:
    full = await provisioner.start(make_launch(tier=4))
    assert full.isolation is not None
    assert "sees all files" in full.isolation
    if confinement.version():
        confined = await provisioner.start(make_launch(tier=1))
        assert "own files only" in (confined.isolation or "")


def test_a_directory_that_holds_the_hidden_one_is_opened_around_it(tmp_path: Path) -> None:
    for path in ("a/b/hidden/x", "a/b/c", "a/d", "e"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "a" / "link").symlink_to("b")
    hidden = tmp_path / "a" / "b" / "hidden"
    opened = {str(path.relative_to(tmp_path)) for path in confinement.beside(tmp_path, hidden)}
    assert opened == {"a/b/c", "a/d", "e"}
    assert list(confinement.beside(hidden, hidden)) == []
    assert list(confinement.beside(hidden / "x", hidden)) == [hidden / "x"]
