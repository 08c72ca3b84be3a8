"""Commands run beside an agent, on behalf of the server."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from molecule_ai.provisioners.base import ExecResult
from molecule_ai.provisioners.errors import CommandNotFound

CHUNK_BYTES = 64 * 1024
NOT_KNOWN = -1
POLL_SECONDS = 0.01


async def execute(
    argv: Sequence[str],
    *,
    directory: Path,
    environment: Mapping[str, str],
    stdin: bytes | None,
    timeout: timedelta,
    max_output_bytes: int,
    sweep: Callable[[], Awaitable[None]],
) -> ExecResult:
    """Run a command in a session of its own; `sweep` ends whatever it leaves behind."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=DEVNULL if stdin is None else PIPE,
            stdout=PIPE,
            stderr=PIPE,
            cwd=directory,
            env=dict(environment),
            start_new_session=True,
        )
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        raise CommandNotFound(argv[0]) from error
    timed_out = False
    outputs: tuple[_Output, _Output] = (_Output(max_output_bytes), _Output(max_output_bytes))
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            await _converse(process, stdin, outputs, sweep)
    except TimeoutError:
        timed_out = True
    finally:
        await sweep()
        await process.wait()
    return ExecResult(
        exit_code=process.returncode if process.returncode is not None else NOT_KNOWN,
        stdout=bytes(outputs[0].kept),
        stderr=bytes(outputs[1].kept),
        truncated=any(output.is_cut for output in outputs),
        timed_out=timed_out,
    )


class _Output:
    """The beginning of a stream; the rest is read and thrown away, so that the command never waits."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.kept = bytearray()
        self.is_cut = False

    async def drain(self, stream: asyncio.StreamReader | None) -> None:
        while stream is not None and (chunk := await stream.read(CHUNK_BYTES)):
            room = self._max_bytes - len(self.kept)
            self.kept += chunk[:room]
            self.is_cut |= len(chunk) > room


async def _converse(
    process: Process,
    stdin: bytes | None,
    outputs: tuple[_Output, _Output],
    sweep: Callable[[], Awaitable[None]],
) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(outputs[0].drain(process.stdout))
        group.create_task(outputs[1].drain(process.stderr))
        group.create_task(_feed(process, stdin))
        # Not `wait()`, which may also wait for the streams; a child in the background keeps those open.
        while process.returncode is None:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
        await sweep()


async def _feed(process: Process, stdin: bytes | None) -> None:
    if process.stdin is None:
        return
    with suppress(BrokenPipeError, ConnectionResetError):  # a command may end without reading
        process.stdin.write(stdin or b"")
        await process.stdin.drain()
    process.stdin.close()
