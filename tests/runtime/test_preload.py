"""Agents forked from a process that has imported what they need."""

import json
import subprocess
import sys
import uuid

import aiohttp
import psutil
import pytest

from molecule_ai.provisioners.base import Launch
from molecule_ai.provisioners.process import ProcessProvisioner
from molecule_ai.runtime.adapters import ADAPTERS
from molecule_ai.runtime.adapters.library import LibraryAdapter
from molecule_ai.runtime.preload import preload

FORK_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="agents are forked on Linux only")
LANGGRAPH_BYTES = 110 * 1024 * 1024


def test_asking_what_to_preload_loads_nothing():
    code = "import sys, molecule_ai.runtime.preload as p; p.preload('echo'); print('aiohttp' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_every_runtime_finds_its_adapter_preloaded():
    for name, target in ADAPTERS.items():
        path = target if isinstance(target, str) else LibraryAdapter.__module__
        assert path.partition(":")[0] in preload(name)
    assert "molecule_ai.runtime.adapters.langgraph" in preload("langgraph")


@FORK_ONLY
async def test_forked_agents_answer(platform, tmp_path, wait_for, said):
    """The provisioner forks only when the imports have started no thread, so this proves that, too."""
    platform.tokens = set()
    provisioner = ProcessProvisioner(tmp_path, platform.url, preload=preload)
    launches = [
        Launch(
            workspace_id=uuid.uuid4(),
            instance_id=uuid.uuid4(),
            name=name,
            token="t" * 32,
            runtime="langgraph",
            model="offline:demo",
            config_files={"config.yaml": json.dumps({"runtime": "langgraph"}).encode()},
        )
        for name in ("Ada", "Bo")
    ]
    try:
        await provisioner.warm("langgraph")
        handles = [await provisioner.start(launch) for launch in launches]
        await wait_for(lambda: len(platform.of("/registry/register")) == 2)
        urls = {call["body"]["id"]: call["body"]["url"] for call in platform.of("/registry/register")}
        async with aiohttp.ClientSession() as session:
            for launch, handle in zip(launches, handles, strict=True):
                assert urls[str(launch.workspace_id)] == handle.url
                body = {
                    "jsonrpc": "2.0",
                    "id": 1,
                    "method": "message/send",
                    "params": {"message": said("Plan")},
                }
                async with session.post(handle.url, json=body) as response:
                    reply = await response.json()
                assert f"{launch.name}: I would" in reply["result"]["parts"][0]["text"]
                assert psutil.Process(handle.pid).memory_info().rss < LANGGRAPH_BYTES
    finally:
        await provisioner.end_all()
        await provisioner.close()
