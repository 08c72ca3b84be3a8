"""What an agent still knows after it was killed."""

import signal
import stat

import pytest

from molecule_ai.runtime.keeping import (
    FILE,
    KEPT_CHARACTERS,
    KEPT_CONTEXTS,
    KEPT_TASKS,
    KEPT_TURNS,
    Keeping,
    KeptTask,
)
from molecule_ai.runtime.messages import Turn
from molecule_ai.runtime.redact import Redactor
from tests.support import wait_for

SAME = "5e6a0c6c-7f0e-4a52-8f43-9d6f2f3b7e21"


@pytest.fixture
def keeping(tmp_path):
    made = Keeping(tmp_path, Redactor(["canary-value-9876"]))
    yield made
    made.close()


def test_a_context_is_read_back_without_secrets(keeping, tmp_path):
    keeping.say("c", "the key is canary-value-9876", "thanks")
    assert Keeping(tmp_path, str).turns("c") == (
        Turn("user", "the key is [REDACTED:SECRET]"),
        Turn("agent", "thanks"),
    )
    assert keeping.turns("other") == ()
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_what_is_kept_has_bounds(keeping):
    for index in range(KEPT_TURNS):
        keeping.say("c", f"q{index}", f"a{index}")
    assert len(keeping.turns("c")) == KEPT_TURNS
    assert keeping.turns("c")[-1] == Turn("agent", f"a{KEPT_TURNS - 1}")
    keeping.say("long", "x" * KEPT_CHARACTERS, "short")
    assert keeping.turns("long") == (Turn("agent", "short"),)
    for index in range(KEPT_CONTEXTS):
        keeping.say(f"c{index}", "q", "a")
    assert keeping.turns("c") == ()
    for index in range(KEPT_TASKS + 1):
        keeping.keep_task(KeptTask(f"t{index}", "", "{}"))
    assert next(task.id for task in keeping.tasks()) == "t1"


def test_a_broken_file_is_no_reason_to_stop(tmp_path):
    (tmp_path / FILE).write_text("no database, for sure" * 100)
    keeping = Keeping(tmp_path, str)
    keeping.say("c", "q", "a")
    assert len(keeping.turns("c")) == 2


async def test_tasks_survive_the_agent_and_interrupted_ones_have_failed(start_agent, said, config_dir):
    script = 'read task; case "$task" in wait*) sleep 60;; esac; echo "did $task"'
    config = {"runtime": "command", "runtime_config": {"command": "sh -c", "args": [script]}}
    agent = await start_agent(config, WORKSPACE_ID=SAME, STRIPE_API_KEY="canary-value-9876")

    async def begin(text):
        params = {"message": said(f"{text}\n"), "configuration": {"blocking": False}}
        return (await agent.rpc("message/send", params))["result"]["id"]

    async def state(task_id):
        return (await agent.rpc("tasks/get", {"id": task_id}))["result"]["status"]["state"]

    done, waiting = await begin("small canary-value-9876"), await begin("wait")

    async def both_are_on_their_way():
        return await state(done) == "completed" and await state(waiting) == "working"

    await wait_for(both_are_on_their_way, 20)
    await agent.stop(signal.SIGKILL)
    agent = await start_agent(config, WORKSPACE_ID=SAME, STRIPE_API_KEY="canary-value-9876")

    kept = (await agent.rpc("tasks/get", {"id": done}))["result"]
    assert kept["status"]["state"] == "completed"
    assert kept["artifacts"][0]["parts"][0]["text"] == "did small [REDACTED:SECRET]"
    failed = (await agent.rpc("tasks/get", {"id": waiting}))["result"]["status"]
    assert failed["state"] == "failed"
    assert failed["message"]["parts"][0]["text"] == "the agent was restarted before the task had ended"
    assert b"canary-value-9876" not in b"".join(path.read_bytes() for path in config_dir.glob(f"{FILE}*"))


async def test_what_the_card_does_not_advertise_is_refused(parrot, said):
    _, agent = parrot
    _, card = await agent.get("/.well-known/agent-card.json")
    assert card["capabilities"] == {"streaming": True, "pushNotifications": False}
    params = {"taskId": "t", "pushNotificationConfig": {"url": "http://127.0.0.1:1/"}}
    assert "error" in await agent.rpc("tasks/pushNotificationConfig/set", params)
