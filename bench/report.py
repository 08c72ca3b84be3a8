"""The table of `bench/README.md`: what is aimed at and what the recorded results say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from .measure import RESULTS

README = Path(__file__).parent / "README.md"
_BEGIN, _END = "<!-- results -->\n", "<!-- end of results -->"
_NOT_MEASURED = "not recorded yet"


class Aim(NamedTuple):
    """One line: a figure of a scenario, by its path, and what it shall be."""

    what: str
    scenario: str
    figure: str
    target: str
    unit: str


AIMS = (
    Aim("heartbeats of 10,000 workspaces", "heartbeats", "per_second", "≥ 5000", "/s"),
    Aim("A2A proxy, added to a direct call, p50", "a2a-proxy", "overhead_p50_ms", "< 2", "ms"),
    Aim("A2A proxy, added to a direct call, p99", "a2a-proxy", "overhead_p99_ms", "< 10", "ms"),
    Aim(
        "500 events/s to 1,000 canvases, p99",
        "event-fanout",
        "canvases_with_arrays.latency.p99_ms",
        "< 100",
        "ms",
    ),
    Aim("500 events/s to 1,000 agents, p99", "event-fanout", "agents.latency.p99_ms", "< 100", "ms"),
    Aim("5,000 of 100,000 schedules claimed", "schedules", "all_claimed_seconds", "< 5", "s"),
    Aim("import of 100 roles until all are online", "org-import", "online_seconds", "< 30", "s"),
    Aim("cold start to the first 200", "footprint", "cold_start_seconds", "< 3", "s"),
    Aim("start of an agent, echo, p95", "start-and-wake", "echo.start.p95_ms", "< 1500", "ms"),
    Aim("start of an agent, langgraph, p95", "start-and-wake", "langgraph.start.p95_ms", "< 1500", "ms"),
    Aim("sleep to first answer, echo, p95", "start-and-wake", "echo.wake.p95_ms", "< 1500", "ms"),
    Aim("sleep to first answer, langgraph, p95", "start-and-wake", "langgraph.wake.p95_ms", "< 1500", "ms"),
    Aim("idle server, memory (PSS)", "footprint", "server_pss_mb", "< 150", "MB"),
    Aim("idle server, one core", "footprint", "server_idle_cpu_percent", "< 2", "%"),
    Aim("idle agent, langgraph (PSS)", "footprint", "agent_langgraph_pss_mb", "< 110", "MB"),
    Aim("idle agent, echo (PSS)", "footprint", "agent_echo_pss_mb", "< 65", "MB"),
    Aim("idle agent, command (PSS)", "footprint", "agent_command_pss_mb", "< 65", "MB"),
    Aim("1,000 agents that only beat, server memory", "idle-external", "server_pss_mb", "< 250", "MB"),
    Aim("1,000 agents that only beat, one core", "idle-external", "server_cpu_percent", "< 10", "%"),
    Aim("… and connections to PostgreSQL", "idle-external", "database_connections", "≤ 20", ""),
    Aim("one workspace read with its token", "workspace-read", "per_second", "", "/s"),
    Aim("list of 1,000 workspaces", "workspace-list", "per_second", "", "/s"),
)


def table(results: Path = RESULTS) -> str:
    """One line for each aim, in Markdown."""
    lines = ["| What | Target | Measured | Recorded |", "|---|---|---|---|"]
    documents = {file.stem: json.loads(file.read_text()) for file in results.glob("*.json")}
    for aim in AIMS:
        document = documents.get(aim.scenario)
        value = _figure(document["figures"], aim.figure) if document else None
        measured = _NOT_MEASURED if value is None else f"{value:,} {aim.unit}".strip()
        where = f"{document['taken_at']}, {document['machine']['cores']} cores" if document else ""
        target = f"{aim.target} {aim.unit}".strip() if aim.target else "none"
        lines.append(f"| {aim.what} | {target} | {measured} | {where} |")
    return "\n".join(lines) + "\n"


def write() -> None:
    """Bring the table up to date."""
    before, _, rest = README.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    README.write_text(f"{before}{_BEGIN}\n{table()}\n{_END}{after}")


def is_current() -> bool:
    """Whether the page shows what the results say."""
    return f"{_BEGIN}\n{table()}\n{_END}" in README.read_text()


def _figure(figures: Any, path: str) -> float | None:
    for name in path.split("."):
        if not isinstance(figures, dict) or name not in figures:
            return None
        figures = figures[name]
    return figures if isinstance(figures, int | float) else None
