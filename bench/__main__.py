"""`make bench`: run scenarios and record their figures in `bench/results/`."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from . import load, measure, report
from .scenarios import fanout, footprint, heartbeats, idle, lifecycle, orgs, proxy, schedules, workspaces
from .target import Target, existing, own

SCENARIOS: dict[str, Callable[[Target], Awaitable[dict[str, Any]]]] = {
    "footprint": footprint.run,
    "workspace-read": workspaces.run_read,
    "workspace-list": workspaces.run_list,
    "heartbeats": heartbeats.run,
    "a2a-proxy": proxy.run,
    "event-fanout": fanout.run,
    "start-and-wake": lifecycle.run,
    "idle-external": idle.run,
    "org-import": orgs.run,
    "schedules": schedules.run,
}
_NEED_WRK = {"workspace-read", "workspace-list", "heartbeats"}


async def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench", description="Run load scenarios; without --base-url on a server of their own."
    )
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], help="default: all")
    parser.add_argument("--base-url", help="a running server; needs --token")
    parser.add_argument("--token", default="")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-record", action="store_true", help="print only")
    parser.add_argument("--table", action="store_true", help="write the table of README.md and end")
    arguments = parser.parse_args()
    if arguments.table:
        report.write()
        return
    for name in arguments.scenario or SCENARIOS:
        if name in _NEED_WRK and not load.has_wrk():
            print(f"{name}: left out, wrk is not installed")
            continue
        target = (
            existing(arguments.base_url, arguments.token)
            if arguments.base_url
            else own(workers=arguments.workers)
        )
        async with target as server:
            figures = await SCENARIOS[name](server)
        print(f"{name}: {json.dumps(figures)}", flush=True)
        if not arguments.no_record:
            measure.record(
                name, figures, target=arguments.base_url or f"own server, {arguments.workers} workers"
            )
            report.write()


asyncio.run(main())
