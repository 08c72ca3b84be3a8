"""Any program as a runtime: the task goes in, standard output is the reply."""

import asyncio
import contextlib
import ctypes
import os
import re
import shlex
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator

from molecule_ai.runtime.adapters.base import AdapterContext, Capabilities, TaskFailed
from molecule_ai.runtime.messages import AgentEvent, AgentTask, Reply
from molecule_ai.runtime.preflight import NotConfigured

# The non-interactive call of each program; `runtime_config.command` replaces it.
DEFAULT_COMMANDS = {
    "codex": "codex exec --skip-git-repo-check {prompt}",
    "gemini-cli": "gemini --prompt {prompt}",
    "hermes": "hermes chat --query {prompt}",
    "openclaw": "openclaw agent --message {prompt}",
}
AGENT_ONLY = frozenset({"AGENT_LISTEN_FD"})
CHUNK_BYTES = 64 * 1024
MAX_REPLY_BYTES = 8 * 1024 * 1024  # below the 10 MiB that the platform's proxy reads
MAX_ERROR_BYTES = 4096  # contract 02 §15: error_detail
TERM_GRACE_SECONDS = 1.0
PR_SET_PDEATHSIG = 1
PLACEHOLDER = re.compile(r"\{(?:prompt|system_prompt|model)\}")

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class CommandAdapter:
    """Runs one process per task, in a process group of its own."""

    capabilities = Capabilities()

    async def setup(self, context: AdapterContext) -> None:
        """Find the program."""
        configured = context.config.runtime_config
        command = configured.command or DEFAULT_COMMANDS.get(context.runtime, "")
        try:
            self._argv = [*shlex.split(command), *configured.args]
        except ValueError as error:
            raise NotConfigured(f"runtime_config.command cannot be split: {error}") from error
        if not self._argv:
            raise NotConfigured("runtime_config.command is not set")
        self._environ = {name: value for name, value in context.environ.items() if name not in AGENT_ONLY}
        if shutil.which(self._argv[0], path=self._environ.get("PATH")) is None:
            raise NotConfigured(f"command not found: {self._argv[0]}")
        self._timeout = configured.timeout or None
        self._cwd = context.workspace_dir if context.workspace_dir.is_dir() else context.config_dir
        self._model = context.model

    async def run(self, task: AgentTask) -> AsyncIterator[AgentEvent]:
        """Start the program, wait for its end, and leave no process behind."""
        process = await self._start(task)
        try:
            async with asyncio.timeout(self._timeout):
                written, errors, _ = await asyncio.gather(
                    _read(process.stdout, MAX_REPLY_BYTES),
                    _read(process.stderr, MAX_ERROR_BYTES, keep_end=True),
                    _feed(process.stdin, task.text),
                )
                status = await process.wait()
        except TimeoutError as error:
            raise TaskFailed(f"{self._argv[0]} did not finish within {self._timeout:g} seconds") from error
        finally:
            await _end(process)
        if status != 0:
            raise TaskFailed(f"{self._argv[0]} ended with status {status}: {errors or 'no message'}")
        yield Reply(written)

    async def _start(self, task: AgentTask) -> Process:
        """Start the program in its own process group, so that its children end with it."""
        values = {"{prompt}": task.text, "{system_prompt}": task.system_prompt, "{model}": self._model}
        takes_prompt = any("{prompt}" in word for word in self._argv)
        try:
            return await asyncio.create_subprocess_exec(
                *(_filled(word, values) for word in self._argv),
                stdin=PIPE if not takes_prompt else DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                cwd=self._cwd,
                env={**self._environ, **_facts(task)},
                process_group=0,
                preexec_fn=_die_with_agent if _libc else None,
            )
        except OSError as error:
            raise TaskFailed(f"{self._argv[0]} cannot be started: {error.strerror}") from error


def _facts(task: AgentTask) -> dict[str, str]:
    return {
        "MOLECULE_TASK_ID": task.id,
        "MOLECULE_CONTEXT_ID": task.context_id,
        "MOLECULE_MESSAGE_ID": task.message_id,
    }


def _die_with_agent() -> None:
    """Ask the kernel to kill the program when the agent dies, even by SIGKILL."""
    assert _libc is not None  # noqa: S101  (runs between fork and exec, where nothing may be imported)
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _filled(word: str, values: dict[str, str]) -> str:
    """Fill placeholders in one pass, so that a prompt holding `{model}` stays as it is."""
    return PLACEHOLDER.sub(lambda match: values[match.group()], word)


async def _feed(stdin: asyncio.StreamWriter | None, text: str) -> None:
    if stdin is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a program may ignore its input
        stdin.write(text.encode())
        await stdin.drain()
    stdin.close()


async def _read(stream: asyncio.StreamReader | None, limit: int, *, keep_end: bool = False) -> str:
    """Read to the end, so that the program never blocks on a full pipe; keep at most `limit` bytes."""
    kept = bytearray()
    while stream is not None and (chunk := await stream.read(CHUNK_BYTES)):
        kept += chunk
        if len(kept) > limit:
            if not keep_end:
                raise TaskFailed(f"the command wrote more than {limit} bytes")
            del kept[:-limit]
    return kept.decode(errors="replace").strip()


async def _end(process: Process) -> None:
    """Kill what is left of the process group, politely first."""
    if process.returncode is None:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TERM_GRACE_SECONDS):
                await process.wait()
    _signal_group(process.pid, signal.SIGKILL)
    await process.wait()


def _signal_group(group: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)
