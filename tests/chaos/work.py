"""Work that goes on while things die, and a record of all that was accepted."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from molecule_ai.server.schedules.service import CHANNEL as SCHEDULES_CHANGED
from tests.house import House, Unanswered
from tests.support import wait_for

# Writes down which message told it what: the effects of an agent, counted where no server can lose them.
SCRIPT = 'read -r job; echo "$MOLECULE_MESSAGE_ID $job" >> "$0"; echo "done: $job $CHAOS"'
TEMPLATE = "ledger"
RESTART_NOTE = "==="  # the platform's own message to an agent that was started anew
REFUSED = frozenset({404, 409, 410})
TURMOIL_SECONDS = 300.0  # while servers are killed faster than their leases end


class Ledgers:
    """What the agents of the `ledger` template did."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "effects"
        template = folder / "templates" / TEMPLATE
        template.mkdir(parents=True)
        self.templates = template.parent
        config = {
            "runtime": "command",
            "runtime_config": {"command": "sh", "args": ["-c", SCRIPT, str(self._file)]},
        }
        (template / "config.yaml").write_text(_yaml(config))

    def effects(self) -> dict[str, Counter[str]]:
        """By job: how often it was done, by the key of the message that asked for it."""
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        done: dict[str, Counter[str]] = {}
        for key, job in (line.split(" ", 1) for line in lines):
            if job.startswith(RESTART_NOTE):
                continue
            done.setdefault(job, Counter())[key] += 1
        return done


class Work:
    """Asks a house for things, again and again until it is told yes, and remembers every yes."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._numbers = itertools.count(1)
        self.jobs: set[str] = set()
        self.delegations: dict[str, str] = {}
        self.slots: list[UUID] = []
        self.approvals: dict[str, UUID] = {}
        self.wishes: dict[UUID, str] = {}
        self.removed: set[UUID] = set()
        self.secret = ""
        self.boss = self.sleeper = self.clerk = UUID(int=0)
        self.ledgers: list[UUID] = []

    async def settle_in(self, ledgers: int = 2) -> None:
        """The residents: a boss, ledger agents who are never touched, one who sleeps, one who is steered."""
        self.boss = await self.hire("boss", runtime="echo")
        below = {"parent_id": str(self.boss)}
        self.ledgers = [await self.hire(f"ledger-{n}", template=TEMPLATE, **below) for n in range(ledgers)]
        self.sleeper = await self.hire("sleeper", template=TEMPLATE, **below)
        self.clerk = await self.hire("clerk", template=TEMPLATE, **below)
        for workspace_id in self.wishes:
            await self.until(workspace_id, "online")

    async def hire(self, name: str, **values: Any) -> UUID:
        """A new workspace. Its name is free, so that whoever has it was made by this very question."""
        while True:
            known = [
                row for row in (await self._house.ask("GET", "/workspaces")).json() if row["name"] == name
            ]
            if known:
                break
            with suppress(Unanswered):
                await self._house.ask("POST", "/workspaces", {"name": name} | values, repeats=False)
        [row] = known
        workspace_id = UUID(row["id"])
        self.wishes[workspace_id] = "online"
        return workspace_id

    async def until(self, workspace_id: UUID, status: str) -> None:
        """Wait for a status, whatever happens meanwhile."""

        async def there() -> bool:
            [row] = await self._house.fetch("SELECT status::text FROM workspaces WHERE id = $1", workspace_id)
            return bool(row["status"] == status)

        try:
            await wait_for(there, TURMOIL_SECONDS, interval=0.1)
        except TimeoutError as late:
            [row] = await self._house.fetch("SELECT * FROM workspaces WHERE id = $1", workspace_id)
            raise AssertionError(f"not {status}: {dict(row)}") from late

    async def delegate(self, count: int) -> None:
        """Tasks from the boss to the ledger agents, each under a key of its own."""
        for n in range(count):
            job = self._job("task")
            body = {
                "target_id": str(self.ledgers[n % len(self.ledgers)]),
                "task": job,
                "idempotency_key": job,
            }
            answer = await self._house.ask("POST", f"/workspaces/{self.boss}/delegate", body)
            self.delegations[job] = answer.json()["delegation_id"]
            self.jobs.add(job)

    async def fire(self, count: int) -> None:
        """Schedules whose only slot of the year is now."""
        for n in range(count):
            job = self._job("tick")
            target = self.ledgers[n % len(self.ledgers)]
            path = f"/workspaces/{target}/schedules"
            body = {"name": job, "cron_expr": "0 0 1 1 *", "prompt": job}
            await self._house.ask("POST", path, body, done=REFUSED)
            [due] = await self._house.fetch(
                "UPDATE workspace_schedules SET next_run_at = date_trunc('minute', now()) "
                "WHERE name = $1 RETURNING id",
                job,
            )
            await self._house.fetch("SELECT pg_notify($1, '')", SCHEDULES_CHANGED)
            self.slots.append(due["id"])
            self.jobs.add(job)

    async def approve(self, count: int) -> None:
        """Requests, each decided once; some by two people at once."""
        for _ in range(count):
            key = self._job("leave")
            path = f"/workspaces/{self.boss}/approvals"
            answer = await self._house.ask("POST", path, {"action": key, "idempotency_key": key})
            self.approvals[key] = UUID(answer.json()["approval_id"])
            decide = f"{path}/{self.approvals[key]}/decide"
            await self._house.ask("POST", decide, {"decision": "approve"}, done=REFUSED)

    async def report(self, count: int) -> None:
        """What agents tell of themselves."""
        for _ in range(count):
            body = {"activity_type": "agent_log", "summary": self._job("report")}
            await self._house.ask("POST", f"/workspaces/{self.boss}/activity", body)

    async def call(self, workspace_id: UUID) -> dict[str, Any]:
        """A message from a person, who does not wait for one who sleeps."""
        job = self._job("call")
        message = {"messageId": job, "role": "user", "parts": [{"kind": "text", "text": job}]}
        body = {"jsonrpc": "2.0", "id": job, "method": "message/send", "params": {"message": message}}
        self.jobs.add(job)
        headers = {"Prefer": "respond-async"}
        answer = await self._house.ask("POST", f"/workspaces/{workspace_id}/a2a", body, headers=headers)
        return dict(answer.json())

    async def sleep_and_wake(self) -> None:
        """A nap that a message ends; the message is done, too."""
        self.wishes[self.sleeper] = "hibernated"
        await self._insist(self.sleeper, "hibernate?force=true", "hibernate")
        await self.until(self.sleeper, "hibernated")
        self.wishes[self.sleeper] = "online"
        await self.call(self.sleeper)
        await self.until(self.sleeper, "online")

    async def steer(self) -> None:
        """Every other verb of a workspace's life, on the clerk."""
        path = f"/workspaces/{self.clerk}"
        await self._insist(self.clerk, "pause", "pause")
        await self._insist(self.clerk, "resume", "run")
        await self._house.ask("PATCH", path, {"role": self._job("role")})
        await self._house.ask("POST", f"{path}/restart")
        await self._house.ask("PUT", f"{path}/model", {"model": "offline:demo"})
        self.secret = self._job("secret")
        await self._house.ask("POST", f"{path}/secrets", {"key": "CHAOS", "value": self.secret})

    async def come_and_go(self) -> None:
        """A short life."""
        name = self._job("guest")
        guest = await self.hire(name, runtime="echo", parent_id=str(self.boss))
        await self.until(guest, "online")
        await self._house.ask("DELETE", f"/workspaces/{guest}?confirm=true", headers={"X-Confirm-Name": name})
        del self.wishes[guest]
        self.removed.add(guest)

    async def import_org(self) -> None:
        """A team that is there as a whole; importing it again changes nothing."""
        name = self._job("team")
        team = [{"name": f"{name}-{n}", "runtime": "echo"} for n in range(2)]
        org = {"name": name, "workspaces": [{"name": name, "runtime": "echo", "children": team}]}
        answer = await self._house.ask("POST", "/org/import", {"template": org})
        ids = [UUID(made["id"]) for made in answer.json()["workspaces"]]
        await self._house.ask(
            "DELETE", f"/workspaces/{ids[0]}?confirm=true", headers={"X-Confirm-Name": name}
        )
        self.removed |= set(ids)

    async def talk(self, amount: int, *besides: Coroutine[Any, Any, None]) -> None:
        """What goes through mailbox, clock and approvals, with other work beside it."""
        async with asyncio.TaskGroup() as group:
            for work in (
                self.delegate(amount),
                self.fire(amount),
                self.approve(2),
                self.report(2),
                *besides,
            ):
                group.create_task(work)

    async def _insist(self, workspace_id: UUID, verb: str, desired: str) -> None:
        """Ask until it is what is wished: whoever has died or is on its way up refuses some verbs."""

        async def is_wished() -> bool:
            await self._house.ask("POST", f"/workspaces/{workspace_id}/{verb}", refusals=REFUSED)
            [row] = await self._house.fetch("SELECT desired FROM workspaces WHERE id = $1", workspace_id)
            return bool(row["desired"] == desired)

        await wait_for(is_wished, TURMOIL_SECONDS, interval=0.2)

    def _job(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers)}"


def _yaml(value: Any) -> str:
    import yaml

    return str(yaml.safe_dump(value))
