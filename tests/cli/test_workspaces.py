"""`molecule workspace` against a served server that starts no agents."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from molecule_ai.cli import workspaces
from molecule_ai.cli.naming import NoSuchName, complete
from molecule_ai.cli.session import Refused, Session
from molecule_ai.cli.transport import Unreachable
from tests.conftest import ADMIN_TOKEN
from tests.support import free_port, serve


class Shell:
    """Types commands; the server finds them at its address."""

    def __init__(self, url: str, token: str = ADMIN_TOKEN) -> None:
        self.url, self.token = url, token

    def run(self, *words: str, output: str = "json", given: str | None = None) -> Result:
        session = Session(api_url=self.url, token=self.token, output=output)
        return CliRunner().invoke(workspaces.app, list(words), obj=session, input=given)

    def ok(self, *words: str, given: str | None = None) -> Any:
        result = self.run(*words, given=given)
        assert result.exit_code == 0, (words, result.output, result.exception)
        return json.loads(result.stdout)

    def said(self, *words: str) -> str:
        result = self.run(*words, output="table")
        assert result.exit_code == 0, (words, result.output, result.exception)
        return result.stdout


@pytest.fixture
async def shell(dsn: str) -> AsyncIterator[Shell]:
    async with serve(dsn, 1) as served:
        yield Shell(served.url)


async def test_a_workspace_is_made_found_changed_and_deleted_by_name(shell: Shell) -> None:
    lead = shell.ok("create", "-n", "Lead", "--role", "leads", "--runtime", "echo", "--max-tasks", "3")
    scout = shell.ok("create", "-n", "Scout", "--parent", "Lead", "--secret", "A_KEY=a=b", "--tier", "2")
    assert scout["parent_id"] == lead["id"]
    assert [row["name"] for row in shell.ok("list", "--parent", "lead")] == ["Scout"]
    assert [row["name"] for row in shell.ok("list", "--roots")] == ["Lead"]
    assert [row["name"] for row in shell.ok("list", "-q", "sco", "--limit", "1")] == ["Scout"]
    assert shell.said("tree").splitlines()[1].startswith("  Scout  [")
    assert "2 workspaces, 1 agents" in shell.said("audit")

    assert shell.ok("get", "lead/scout")["tier"] == 2
    assert "restart it" in shell.said("update", "Scout", "--runtime", "command", "--hibernate-after", "5")
    assert shell.ok("get", "Scout")["hibernation_idle_minutes"] == 5
    shell.ok("update", "Scout", "--root", "--name", "Ranger")
    assert shell.ok("get", "Ranger")["parent_id"] is None
    assert shell.run("update", "Ranger").exit_code == 2
    assert shell.ok("state", "Ranger")["paused"] is False
    assert shell.ok("pause", "Ranger", "--wait")["status"] == "paused"
    assert "paused" in shell.said("state", "Ranger")

    wrong = shell.run("delete", "Ranger", "--confirm-name", "ranger")
    assert isinstance(wrong.exception, Refused)
    assert wrong.exception.status == 400
    assert shell.ok("delete", "Ranger", "--yes")["status"] == "removed"
    assert isinstance(shell.run("get", "Ranger").exception, NoSuchName)


async def test_names_that_mean_nobody_or_several(shell: Shell) -> None:
    for parent in ("One", "Two"):
        shell.ok("create", "-n", parent, "--runtime", "echo")
        shell.ok("create", "-n", "Helper", "--parent", parent, "--runtime", "echo")
    several = str(shell.run("get", "Helper").exception)
    assert '"Helper" is the name of 2 workspaces; say which:' in several
    assert "One/Helper  (" in several
    assert shell.ok("get", "Two/Helper")["name"] == "Helper"
    nobody = str(shell.run("get", "Helpers").exception)
    assert nobody == 'there is no workspace named "Helpers"; did you mean Helper?'
    assert "workspace list" in str(shell.run("pause", "zzz").exception)


async def test_what_is_kept_with_a_workspace(shell: Shell) -> None:
    shell.ok("create", "-n", "Keeper", "--runtime", "langgraph", "--model", "offline:demo")
    shell.ok("create", "-n", "Empty", "--runtime", "echo")
    assert shell.ok("config", "Keeper", "--set", "colour=blue", "--set", 'size={"w":1}')["size"] == {"w": 1}
    assert shell.ok("config", "Keeper")["colour"] == "blue"
    assert shell.said("model", "Keeper") == "offline:demo  from workspace_secrets\n"
    assert shell.ok("model", "Keeper", "offline:other")["model"] == "offline:other"
    assert shell.ok("model", "Keeper", "--clear")["status"] == "cleared"

    assert shell.run("secret", "set", "Keeper", "A_KEY=1", "B_KEY", given="from a pipe\n").exit_code == 0
    assert {row["key"] for row in shell.ok("secret", "list", "Keeper")} == {"A_KEY", "B_KEY"}
    assert shell.ok("secret", "delete", "Keeper", "A_KEY")["status"] == "deleted"
    assert shell.run("create", "-n", "Bad", "--secret", "no-pair").exit_code == 2

    minted = shell.ok("token", "mint", "Keeper", "--name", "laptop")
    assert [row["name"] for row in shell.ok("token", "list", "Keeper")] == ["laptop"]
    assert shell.ok("token", "revoke", "Keeper", minted["id"])["status"] == "revoked"

    assert [row["name"] for row in shell.ok("agent", "list")] == ["Keeper"]
    assert shell.ok("agent", "replace", "Keeper", "offline:next", "--no-restart")["model"] == "offline:next"
    assert shell.ok("agent", "move", "Keeper", "Empty")["model"] == "offline:next"
    assert shell.ok("agent", "assign", "Keeper", "offline:demo")["model"] == "offline:demo"
    assert shell.ok("agent", "remove", "Keeper")["status"] == "removed"
    assert shell.ok("agent", "list", "Keeper") == []

    assert shell.ok("abilities", "Keeper", "--broadcast", "--no-talk")["broadcast_enabled"] is True
    assert shell.ok("broadcast", "Keeper", "hello")["delivered"] == 1
    assert [row["name"] for row in shell.ok("peers", "Keeper", "--reachable")] == ["Empty"]


async def test_an_external_agent_is_told_how_to_connect(shell: Shell) -> None:
    said = shell.said("create", "-n", "Outside", "--poll")
    assert "token, shown this once:" in said
    assert "/registry/register" in said
    made = shell.ok("get", "Outside")
    assert (made["status"], made["delivery_mode"]) == ("awaiting_agent", "poll")
    assert shell.ok("connection", "Outside")["connection"]["auth_token"] == ""
    assert len(shell.ok("rotate", "Outside")["connection"]["auth_token"]) == 43
    shell.ok("create", "-n", "Asker", "--external")
    assert shell.ok("discover", "Asker", "Outside")["delivery_mode"] == "poll"
    refused = shell.run("restart", "Outside")
    assert isinstance(refused.exception, Refused)
    assert "EXTERNAL_WORKSPACE" in str(refused.exception)


async def test_a_wait_ends_with_the_reason_of_a_failure(shell: Shell) -> None:
    made = shell.run("create", "-n", "Nowhere", "--runtime", "echo", "--wait", "--timeout", "30")
    assert made.exit_code == 1
    assert "Nowhere is failed: this server starts no agents" in str(made.exception)
    assert "s  Nowhere: failed (NO_BACKEND)" in made.stderr
    late = shell.run("create", "-n", "Awaited", "--external", "--wait", "--timeout", "0.3")
    assert "Awaited is still awaiting_agent, not degraded or online" in str(late.exception)


async def test_nobody_without_a_credential(shell: Shell) -> None:
    refused = Shell(shell.url, "wrong").run("list")
    assert isinstance(refused.exception, Refused)
    assert "HTTP 401" in str(refused.exception)
    assert "--token" in str(refused.exception)
    nobody = Shell(f"http://127.0.0.1:{free_port()}").run("list")
    assert isinstance(nobody.exception, Unreachable)
    assert "molecule up" in str(nobody.exception)


async def test_the_shell_completes_names(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shell.ok("create", "-n", "Scout", "--role", "looks around", "--external")
    monkeypatch.setenv("MOLECULE_HOME", str(tmp_path))
    monkeypatch.setenv("MOLECULE_API_URL", shell.url)
    monkeypatch.setenv("MOLECULE_API_KEY", ADMIN_TOKEN)
    assert complete(None, "sc") == [("Scout", "awaiting_agent looks around")]  # type: ignore[arg-type]
    monkeypatch.setenv("MOLECULE_API_URL", f"http://127.0.0.1:{free_port()}")
    assert complete(None, "sc") == []  # type: ignore[arg-type]
