"""What an agent keeps in memory while it waits."""

import subprocess
import sys

import psutil
import pytest

HEAVY = (
    "a2a",
    "anyio",
    "granian",
    "httpx",
    "langchain",
    "langgraph",
    "litestar",
    "pydantic",
    "starlette",
    "typer",
)
ECHO_BYTES, LANGGRAPH_BYTES = 65 * 1024 * 1024, 110 * 1024 * 1024


def test_a_waiting_agent_has_loaded_nothing_heavy():
    """Holds whether or not the libraries are installed, so it holds on every machine."""
    code = (
        "import sys, molecule_ai.runtime.main as m, molecule_ai.runtime.adapters as a;"
        "[a.load_adapter(name) for name in a.ADAPTERS];"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.skipif(sys.platform != "linux", reason="counts resident pages the way Linux does")
@pytest.mark.parametrize(("runtime", "limit"), [("echo", ECHO_BYTES), ("langgraph", LANGGRAPH_BYTES)])
async def test_an_agent_that_has_worked_stays_small(start_agent, runtime, limit):
    agent = await start_agent({"runtime": runtime}, MOLECULE_MODEL="offline:demo")
    for index in range(5):
        await agent.say(f"task {index}")
    assert psutil.Process(agent.pid).memory_info().rss < limit
