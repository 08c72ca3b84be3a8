"""Heartbeats of 10,000 workspaces, each with its own token."""

from __future__ import annotations

import json
import tempfile
from typing import Any

from bench.load import wrk
from bench.target import Target

from .workspaces import registered

WORKSPACES = 10_000
_SECONDS = 20
_CONNECTIONS = 256  # agents do not wait for each other

_SCRIPT = """
local beats = {}
for line in io.lines(%s) do
  local id, token = line:match("(%%S+) (%%S+)")
  local body = '{"workspace_id":"' .. id .. '","error_rate":0,"active_tasks":0,' ..
    '"uptime_seconds":60,"runtime_metadata":{"capabilities":{}}}'
  beats[#beats + 1] = wrk.format("POST", "/registry/heartbeat",
    {["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/json"}, body)
end
local at = 0
request = function()
  at = at %% #beats + 1
  return beats[at]
end
"""


async def run(target: Target) -> dict[str, Any]:
    """Sustained heartbeats: the rate, the latency, and that none failed."""
    agents = await registered(target, WORKSPACES, "beat")
    with (
        tempfile.NamedTemporaryFile("w", suffix=".txt") as list_file,
        tempfile.NamedTemporaryFile("w", suffix=".lua") as script,
    ):
        list_file.writelines(f"{workspace_id} {token}\n" for workspace_id, token in agents)
        list_file.flush()
        script.write(_SCRIPT % json.dumps(list_file.name))
        script.flush()
        figures = await wrk(target.url, seconds=_SECONDS, connections=_CONNECTIONS, script=script.name)
    return {"workspaces": WORKSPACES, **figures}
