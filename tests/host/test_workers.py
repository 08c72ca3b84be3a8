import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests import processes
from tests.support import free_port, wait_for

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60


class Main:
    """The main process of a small server."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5)

    def workers(self) -> set[int]:
        return set(processes.children(self.process.pid))

    async def answers(self) -> bool:
        """On a connection of its own, whichever worker takes it."""
        with suppress(httpx.TransportError):
            answer = await self._http.get("/", headers={"connection": "close"})
            return int(answer.text) in self.workers()
        return False

    async def until_two_without(self, gone: set[int]) -> set[int]:
        def renewed() -> set[int]:
            workers = self.workers()
            return workers if len(workers) == 2 and not workers & gone else set()

        return await wait_for(renewed, PATIENCE_SECONDS)


@pytest.fixture
async def start() -> AsyncIterator[Callable[[str], Awaitable[Main]]]:
    started: list[Main] = []

    async def start(app: str) -> Main:
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.host.tiny", str(port), app),
            cwd=ROOT,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        started.append(Main(process, port))
        return started[-1]

    yield start
    for main in started:
        with suppress(ProcessLookupError):
            os.killpg(main.process.pid, signal.SIGKILL)
        await main.process.wait()


def kill(pids: set[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


async def tell_until_gone(pid: int) -> None:
    def is_gone() -> bool:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
        return not processes.command(pid)

    await wait_for(is_gone, PATIENCE_SECONDS, interval=0.02)


async def test_workers_that_are_killed_again_and_again_are_replaced(
    start: Callable[[str], Awaitable[Main]],
) -> None:
    main = await start("app")
    await wait_for(main.answers, PATIENCE_SECONDS)
    for _ in range(3):
        workers = await main.until_two_without(set())
        kill(workers)
        await main.until_two_without(workers)
    await wait_for(main.answers, PATIENCE_SECONDS)
    assert main.process.returncode is None
    main.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(main.process.wait(), PATIENCE_SECONDS) == 0


async def test_a_server_whose_workers_cannot_start_gives_up(start: Callable[[str], Awaitable[Main]]) -> None:
    main = await start("broken")
    assert await asyncio.wait_for(main.process.wait(), PATIENCE_SECONDS) == 3


async def test_workers_do_not_outlive_the_main_process_even_if_they_do_not_listen(
    start: Callable[[str], Awaitable[Main]],
) -> None:
    main = await start("stubborn")
    await wait_for(main.answers, PATIENCE_SECONDS)
    workers = main.workers()
    assert len(workers) == 2
    kill({main.process.pid})
    await wait_for(lambda: not any(map(processes.command, workers)), PATIENCE_SECONDS)


async def test_a_worker_ends_however_often_and_early_it_is_told_to(
    start: Callable[[str], Awaitable[Main]],
) -> None:
    main = await start("polite")
    await wait_for(main.answers, PATIENCE_SECONDS)
    grown = await main.until_two_without(set())
    await tell_until_gone(grown.pop())
    young = await wait_for(lambda: main.workers() - grown, PATIENCE_SECONDS)
    await tell_until_gone(young.pop())
