"""How an agent that runs elsewhere connects (contract 02 §7)."""

from __future__ import annotations

from uuid import UUID

from .schemas import ExternalConnection

_CURL = """\
# Registers once. AGENT_URL is where your agent answers A2A requests.
WORKSPACE_AUTH_TOKEN="<paste from create response>"
AGENT_URL="https://your-agent.example.net"
curl -fsS -X POST "{registry}" \\
  -H "Authorization: Bearer $WORKSPACE_AUTH_TOKEN" \\
  -H "Content-Type: application/json" \\
  -d '{{"id":"{id}","url":"'"$AGENT_URL"'","agent_card":{{"name":"{name}","skills":[]}}}}'
"""

_PYTHON = '''\
"""Connects an agent to Molecule without a public address: it registers, beats and polls."""
import json
import time
import urllib.request

WORKSPACE_ID  = "{id}"
PLATFORM_URL  = "{url}"
AUTH_TOKEN    = "<paste from create response>"


def call(method, path, body=None):
    request = urllib.request.Request(
        PLATFORM_URL + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={{"Authorization": "Bearer " + AUTH_TOKEN, "Content-Type": "application/json"}},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


card = {{"name": {name!r}, "skills": []}}
call("POST", "/registry/register", {{"id": WORKSPACE_ID, "delivery_mode": "poll", "agent_card": card}})
inbox, after = "/workspaces/" + WORKSPACE_ID + "/activity?type=a2a_receive&limit=50", ""
while True:
    call("POST", "/registry/heartbeat", {{"workspace_id": WORKSPACE_ID, "active_tasks": 0}})
    for entry in call("GET", inbox + after):
        after = "&since_id=" + entry["id"]
        print(entry["data"]["peer_name"] or entry["data"]["source"], "says:", entry["data"]["text"])
    time.sleep(20)
'''


def connection(workspace_id: UUID, name: str, platform_url: str, token: str = "") -> ExternalConnection:
    """What to hand to whoever runs the agent; the token only right after it was minted."""
    url = platform_url.rstrip("/")
    registry = f"{url}/registry/register"
    plain = "".join(c for c in name if c.isprintable() and c not in "\"'\\$`{}")
    return ExternalConnection(
        workspace_id=workspace_id,
        platform_url=url,
        auth_token=token,
        registry_endpoint=registry,
        heartbeat_endpoint=f"{url}/registry/heartbeat",
        curl_register_template=_CURL.format(registry=registry, id=workspace_id, name=plain),
        python_snippet=_PYTHON.format(id=workspace_id, url=url, name=plain),
    )
