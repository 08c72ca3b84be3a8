"""A server process to be killed: it starts one agent, prints its handle and waits."""

import asyncio
import sys
from pathlib import Path
from uuid import UUID

import msgspec
import structlog

from molecule_ai.provisioners.base import Launch, Provisioner
from molecule_ai.provisioners.docker.options import DockerOptions
from molecule_ai.provisioners.docker.provisioner import DockerProvisioner
from molecule_ai.provisioners.process import ProcessProvisioner

PLATFORM_URL = "http://127.0.0.1:8080"
NETWORK = "molecule-test"
STUB = str(Path(__file__).with_name("agent_stub.py"))
STUB_IN_IMAGE = "/opt/agent_stub.py"


def back_end(home: Path, runtime: str, engine: str, image: str) -> Provisioner:
    if engine:
        return DockerProvisioner(
            home,
            PLATFORM_URL,
            DockerOptions(
                host=engine, network=NETWORK, images={"langgraph": image}, command=("python3", STUB_IN_IMAGE)
            ),
        )
    preload = ("http.server", "json", "subprocess") if runtime == "forked" else ()
    return ProcessProvisioner(home, PLATFORM_URL, entry=STUB, preload=lambda _: preload)


async def main(
    home: str, runtime: str, workspace_id: str, instance_id: str, engine: str = "", image: str = ""
) -> None:
    provisioner = back_end(Path(home), runtime, engine, image)
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
