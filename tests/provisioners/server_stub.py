"""A server process to be killed: it starts one agent, prints its handle and waits."""

import asyncio
import sys
from pathlib import Path
from uuid import UUID

import msgspec
import structlog

from molecule_ai.provisioners.base import Launch
from molecule_ai.provisioners.process import ProcessProvisioner

STUB = str(Path(__file__).with_name("agent_stub.py"))


async def main(home: str, runtime: str, workspace_id: str, instance_id: str) -> None:
    preload = ("http.server", "json", "subprocess") if runtime == "forked" else ()
    provisioner = ProcessProvisioner(
        Path(home), "http://127.0.0.1:8080", entry=STUB, preload=lambda _: preload
    )
    launch = Launch(
        workspace_id=UUID(workspace_id),
        instance_id=UUID(instance_id),
        name="Agent",
        token="t" * 43,
        config_files={"config.yaml": b"name: Agent\n"},
    )
    handle = await provisioner.start(launch)
    sys.stdout.write(msgspec.json.encode(handle).decode() + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
asyncio.run(main(*sys.argv[1:]))
