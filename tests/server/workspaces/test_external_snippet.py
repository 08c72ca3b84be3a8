"""What is printed for an external agent is a program that works."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

from tests.conftest import ADMIN_TOKEN
from tests.support import serve, wait_for


async def test_the_printed_program_registers_and_hears_each_message_once(dsn: str, tmp_path: Path) -> None:
    async with serve(dsn, 1) as served, served.client(ADMIN_TOKEN) as admin:
        made = (await admin.post("/workspaces", json={"name": "Far", "external": True})).json()
        told = made["connection"]
        program = tmp_path / "agent.py"
        text = told["python_snippet"].replace("<paste from create response>", told["auth_token"])
        program.write_text(text.replace("time.sleep(20)", "time.sleep(0.1)"))
        agent = await asyncio.create_subprocess_exec(
            sys.executable, "-u", str(program), stdout=asyncio.subprocess.PIPE
        )
        try:

            async def is_online() -> bool:
                return bool((await admin.get(f"/workspaces/{made['id']}")).json()["status"] == "online")

            await wait_for(is_online, 20, interval=0.1)
            for words in ("good morning", "good evening"):
                said = {"role": "user", "messageId": words, "parts": [{"kind": "text", "text": words}]}
                body = {"method": "message/send", "params": {"message": said}}
                answer = await admin.post(f"/workspaces/{made['id']}/a2a", json=body)
                assert answer.json()["delivery_mode"] == "poll", answer.text
            assert agent.stdout is not None
            heard = [await asyncio.wait_for(agent.stdout.readline(), 20) for _ in range(2)]
        finally:
            with suppress(ProcessLookupError):
                agent.kill()
            await agent.wait()
    assert heard == [b"canvas_user says: good morning\n", b"canvas_user says: good evening\n"]
