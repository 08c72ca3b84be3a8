"""Import of an organization of 100 roles until all of them are online."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bench.target import Target

ROLES = 100
_TEAMS = 9


async def until_online(target: Target, wanted: set[str], seconds: float) -> None:
    """Wait until all of `wanted` are online. Raises when one fails or time is up."""
    deadline = time.monotonic() + seconds
    while True:
        rows = {row["id"]: row for row in await target.call("GET", "/workspaces") if row["id"] in wanted}
        if len(rows) == len(wanted) and all(row["status"] == "online" for row in rows.values()):
            return
        failed = [row for row in rows.values() if row["status"] == "failed"]
        if failed or time.monotonic() > deadline:
            states = sorted(row["status"] for row in rows.values())
            raise RuntimeError(f"not online after {seconds:.0f} s: {states} {failed[:1]}")
        await asyncio.sleep(0.2)


def document(roles: int) -> dict[str, Any]:
    """A head, teams, and members: `roles` workspaces in three levels."""
    members = roles - 1 - _TEAMS
    teams = [
        {
            "name": f"Lead {team}",
            "role": "Leads a team",
            "children": [
                {"name": f"Member {team}-{number}", "role": "Does the work"}
                for number in range(members // _TEAMS + (team < members % _TEAMS))
            ],
        }
        for team in range(_TEAMS)
    ]
    return {
        "name": f"Bench {roles}",
        "defaults": {"runtime": "langgraph", "model": "offline:demo"},
        "workspaces": [{"name": "Head", "role": "Leads all", "children": teams}],
    }


async def run(target: Target) -> dict[str, Any]:
    """Seconds for the import itself and until the last agent is online."""
    began = time.monotonic()
    answer = await target.call("POST", "/org/import", {"template": document(ROLES)})
    imported = time.monotonic() - began
    await until_online(target, {row["id"] for row in answer["workspaces"]}, 300)
    return {
        "roles": answer["count"],
        "import_seconds": round(imported, 2),
        "online_seconds": round(time.monotonic() - began, 1),
    }
