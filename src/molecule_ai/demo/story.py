"""The demo's seven steps. Each waits for what it claims and fails with the reason when it does not come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from molecule_ai.client.messages import envelope, reply_text

from .platform import DemoFailed, Platform
from .tally import Tally

ORG = "launch-studio"
OFFLINE = "offline:demo"
_TASK = (
    "Prepare the launch of Tidewater, our tide and wind forecast for small harbours: "
    "what do we know about the users, what do we say, and what is left before release?"
)
_APPROVAL = "needs approval: publish the Tidewater launch page"
_ONLINE_SECONDS = 120
_STEP_SECONDS = 120


class Story:
    """Runs the steps one after the other; `say` tells people what is going on."""

    def __init__(
        self, platform: Platform, tally: Tally, say: Callable[[str], None], *, secrets: Mapping[str, str]
    ) -> None:
        self._platform = platform
        self._tally = tally
        self._say = say
        self._secrets = secrets
        self.started = time.monotonic()
        self.answer = ""

    async def run(self) -> None:
        """All steps. Raises `DemoFailed`."""
        await self._import()
        await self._everybody_online()
        schedule_owner = await self._schedule_every_minute()
        await self._task_for_the_top()
        await self._approval()
        await self._sleep_and_wake()
        await self._schedule_fires(schedule_owner)

    def summary(self) -> dict[str, Any]:
        """The figures of the demo's last line."""
        tally = self._tally
        return {
            "workspaces": len(tally.workspaces),
            "online": len(tally.online),
            "messages": tally.messages,
            "delegations_completed": tally.delegations_completed,
            "schedule_runs": tally.schedule_runs,
            "approvals_decided": tally.approvals_decided,
            "woken": len(tally.woken),
            "seconds": round(time.monotonic() - self.started, 1),
        }

    async def _import(self) -> None:
        await self._choose_model()
        self._say(f"importing the organization {ORG!r}")
        answer = await self._platform.call("POST", "/org/import", {"dir": ORG}, timeout=120)
        if answer.get("error"):
            raise DemoFailed(f"import: {answer['error']}")
        for row in await self._platform.call("GET", "/workspaces"):
            self._tally.workspaces[row["id"]] = row
            if row["status"] == "online":
                self._tally.online.add(row["id"])

    async def _choose_model(self) -> None:
        """An org-wide secret named MODEL is the model of every role; a former demo may have left one."""
        kept = {row["key"] for row in await self._platform.call("GET", "/settings/secrets")}
        if "MODEL" in kept and "MODEL" not in self._secrets:
            await self._platform.call("DELETE", "/settings/secrets/MODEL")
        for key, value in self._secrets.items():
            await self._platform.call("PUT", "/settings/secrets", {"key": key, "value": value})

    async def _everybody_online(self) -> None:
        wanted = len(self._tally.workspaces)
        self._say(f"waiting for {wanted} agents")

        async def all_online() -> bool:
            for row in await self._platform.call("GET", "/workspaces"):
                self._tally.workspaces[row["id"]].update(row)
                if row["status"] == "failed":
                    raise DemoFailed(f"{row['name']} failed: {row['last_sample_error']}")
                if row["status"] == "online":
                    self._tally.online.add(row["id"])
            return len(self._tally.online) >= wanted

        await _until(all_online, _ONLINE_SECONDS, "all agents online")

    async def _schedule_every_minute(self) -> str:
        owner = self._named("Content Lead")
        path = f"/workspaces/{owner['id']}/schedules"
        for schedule in await self._platform.call("GET", path):
            if schedule["name"] == "Demo pulse":
                await self._platform.call("DELETE", f"{path}/{schedule['id']}")
        body = {"name": "Demo pulse", "cron_expr": "* * * * *", "prompt": "Say in one line what you work on."}
        await self._platform.call("POST", path, body)
        self._say(f"{owner['name']} now has a schedule that fires every minute")
        return str(owner["id"])

    async def _task_for_the_top(self) -> None:
        top = next(row for row in self._tally.workspaces.values() if row["parent_id"] is None)
        self._say(f"a task for {top['name']}; it delegates, the others answer")
        before = self._tally.delegations_completed
        self.answer = await self._ask(top, _TASK)
        leads = [row for row in self._tally.workspaces.values() if row["parent_id"] == top["id"]]
        await _until(
            lambda: self._tally.delegations_completed >= before + len(leads),
            _STEP_SECONDS,
            "a completed delegation to every lead",
        )

    async def _approval(self) -> None:
        asker = self._named("Release Lead")
        self._say(f"{asker['name']} wants to publish and has to ask")
        asking = asyncio.create_task(self._ask(asker, _APPROVAL))
        try:
            await _until(
                lambda: self._tally.pending_approval is not None or asking.done(), _STEP_SECONDS, "a request"
            )
            pending = self._tally.pending_approval
            if pending is None:
                raise DemoFailed(f"no approval was asked for; the agent said: {asking.result()[:200]}")
            path = f"/workspaces/{pending['workspace_id']}/approvals/{pending['approval_id']}/decide"
            self._say("the demo approves it")
            await self._platform.call("POST", path, {"decision": "approve", "decided_by": "the demo"})
            reply = await asking
        finally:
            asking.cancel()
        if "approved" not in reply.lower():
            raise DemoFailed(f"the agent did not hear of its approval; it said: {reply[:200]}")

    async def _sleep_and_wake(self) -> None:
        sleeper = self._leaf()
        self._say(f"{sleeper['name']} is put to sleep")
        await self._platform.call("POST", f"/workspaces/{sleeper['id']}/hibernate?force=true")
        await _until(lambda: sleeper["id"] in self._tally.asleep, _STEP_SECONDS, "hibernation")
        self._say(f"a message wakes {sleeper['name']}")
        await self._ask(sleeper, "Are you awake? Answer in one line.")
        await _until(lambda: sleeper["id"] in self._tally.woken, _STEP_SECONDS, "the awakening")

    async def _schedule_fires(self, owner: str) -> None:
        if not self._tally.schedule_runs:
            self._say("waiting for the schedule of the minute")
        await _until(lambda: self._tally.schedule_runs > 0, _STEP_SECONDS, "a schedule run")
        for schedule in await self._platform.call("GET", f"/workspaces/{owner}/schedules"):
            if schedule["name"] == "Demo pulse":
                path = f"/workspaces/{owner}/schedules/{schedule['id']}"
                await self._platform.call("PATCH", path, {"enabled": False})

    async def _ask(self, workspace: dict[str, Any], text: str) -> str:
        """Send a message and return the reply; a waking workspace is asked again, as its answer says."""
        deadline = time.monotonic() + _STEP_SECONDS
        body = envelope(text)
        while True:
            request = self._platform.raw(
                "POST", f"/workspaces/{workspace['id']}/a2a", body, timeout=_STEP_SECONDS
            )
            async with request as answer:
                reply = await answer.json()
                if answer.status == 200:
                    return reply_text(reply)
            retry = answer.status == 503 and (reply.get("waking") or reply.get("status") == "provisioning")
            if not retry or time.monotonic() > deadline:
                raise DemoFailed(f"{workspace['name']}: HTTP {answer.status} — {reply.get('error', reply)}")
            await asyncio.sleep(0.25)

    def _named(self, name: str) -> dict[str, Any]:
        return next(row for row in self._tally.workspaces.values() if row["name"] == name)

    def _leaf(self) -> dict[str, Any]:
        parents = {row["parent_id"] for row in self._tally.workspaces.values()}
        return next(row for row in self._tally.workspaces.values() if row["id"] not in parents)


async def _until(
    condition: Callable[[], bool | Awaitable[bool]], seconds: float, what: str, pause: float = 0.1
) -> None:
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if await result if isinstance(result, Awaitable) else result:
            return
        if time.monotonic() > deadline:
            raise DemoFailed(f"waited {seconds:.0f} s for {what}")
        await asyncio.sleep(pause)
