"""Any program as a runtime."""

import asyncio
import os
import shlex
import signal
import sys

import psutil
import pytest

from molecule_ai.runtime.adapters.base import AdapterContext, TaskFailed
from molecule_ai.runtime.adapters.command import CommandAdapter
from molecule_ai.runtime.config import AgentConfig, RuntimeConfig
from molecule_ai.runtime.keeping import Keeping
from molecule_ai.runtime.messages import AgentTask, Reply


@pytest.fixture
def run(tmp_path):
    async def run(command: str, text: str = "the task", *, timeout: float = 0, args=(), runtime="command"):
        config = AgentConfig(
            runtime=runtime, runtime_config=RuntimeConfig(command=command, args=list(args), timeout=timeout)
        )
        context = AdapterContext(
            runtime=runtime,
            config=config,
            name="n",
            role="r",
            model="some:model",
            tools=(),
            sessions=Keeping(None, str),
            config_dir=tmp_path,
            workspace_dir=tmp_path,
            environ={"PATH": os.environ["PATH"], "AGENT_LISTEN_FD": "9", "A_SECRET": "s"},
        )
        adapter = CommandAdapter()
        await adapter.setup(context)
        task = AgentTask(id="t-1", context_id="c-1", text=text, system_prompt="Be kind.", message_id="m-1")
        [reply] = [event async for event in adapter.run(task)]
        assert isinstance(reply, Reply)
        return reply.text

    return run


async def test_the_task_arrives_on_standard_input(run):
    assert await run("tr a-z A-Z") == "THE TASK"


async def test_the_task_arrives_as_an_argument(run):
    command = "printf '%s|%s|%s' {prompt} {model} {system_prompt}"
    assert await run(command, "say {model} & $HOME; rm") == "say {model} & $HOME; rm|some:model|Be kind."


async def test_args_follow_the_command(run):
    assert await run("echo", args=["a b", "c"]) == "a b c"


async def test_it_runs_in_the_workspace_with_its_environment(run, tmp_path):
    ids = "$MOLECULE_TASK_ID $MOLECULE_CONTEXT_ID $MOLECULE_MESSAGE_ID"
    script = f'echo "$PWD {ids} $A_SECRET ${{AGENT_LISTEN_FD:-none}}"'
    assert await run("sh -c", args=[script]) == f"{tmp_path} t-1 c-1 m-1 s none"


async def test_a_program_that_ignores_its_input_is_fine(run):
    assert await run("echo done", "x" * 1_000_000) == "done"


async def test_much_output_on_both_sides_does_not_block(run):
    script = "import sys; sys.stderr.write('e' * 1_000_000); sys.stdout.write('o' * 1_000_000)"
    assert len(await run(shlex.quote(sys.executable), args=["-c", script])) == 1_000_000


async def test_a_failure_names_status_and_last_words(run):
    with pytest.raises(TaskFailed, match="sh ended with status 4: no luck"):
        await run("sh -c", args=["echo no luck >&2; exit 4"])


async def test_a_limit_kills_the_whole_group(run, tmp_path):
    with pytest.raises(TaskFailed, match=r"sh did not finish within 0\.3 seconds"):
        await run("sh -c", args=["sleep 60 & echo $! > child; wait"], timeout=0.3)
    await _gone(int((tmp_path / "child").read_text()))


async def test_a_stubborn_program_is_killed(run, tmp_path):
    with pytest.raises(TaskFailed):
        await run("sh -c", args=["trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done"], timeout=0.3)
    await _gone(int((tmp_path / "pid").read_text()))


async def test_a_cancelled_task_leaves_nothing_behind(run, tmp_path, wait_for):
    task = asyncio.ensure_future(run("sh -c", args=["echo $$ > pid; sleep 60"]))
    pid = int(await wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _gone(pid)


async def test_the_program_dies_with_its_agent(start_agent, config_dir, wait_for):
    script = {"command": "sh -c", "args": ["echo $$ > pid; exec sleep 60"]}
    agent = await start_agent({"runtime": "command", "runtime_config": script})
    asking = asyncio.ensure_future(agent.say("go"))
    path = config_dir.parent / "workspace" / "pid"
    pid = int(await wait_for(lambda: path.exists() and path.read_text()))
    await agent.stop(signal.SIGKILL)
    await _gone(pid)
    await asyncio.gather(asking, return_exceptions=True)


async def _gone(pid: int) -> None:
    for _ in range(200):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"process {pid} is still alive")
