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
import uuid
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from weakref import WeakValueDictionary

from msgspec import Struct

from molecule_ai.runtime.adapters.base import AdapterContext, Capabilities, TaskFailed
from molecule_ai.runtime.adapters.presets import PRESETS, Preset, Read, Spoken, read_text
from molecule_ai.runtime.adapters.providers import as_text
from molecule_ai.runtime.messages import AgentEvent, AgentTask, Reply
from molecule_ai.runtime.preflight import NotConfigured

AGENT_ONLY = frozenset({"AGENT_LISTEN_FD"})
CHUNK_BYTES = 64 * 1024
MAX_REPLY_BYTES = 8 * 1024 * 1024  # below the 10 MiB that the platform's proxy reads
MAX_ERROR_BYTES = 4096  # contract 02 §15: error_detail
TERM_GRACE_SECONDS = 1.0
PR_SET_PDEATHSIG = 1
PLACEHOLDER = re.compile(r"\{(?:prompt|system_prompt|provider|model|session|new_session)\}")
PLAIN = Preset(start="", resume="", read=read_text, lost="", home="")

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Ended(Struct, frozen=True):
    """A program that has run to its end."""

    status: int
    written: str
    errors: str


class CommandAdapter:
    """Runs one process per task, in a process group of its own."""

    capabilities = Capabilities()

    async def setup(self, context: AdapterContext) -> None:
        """Find the program, and what it needs."""
        configured = context.config.runtime_config
        self._preset = PLAIN if configured.command else PRESETS.get(context.runtime, PLAIN)
        self._knows_sessions = self._preset is not PLAIN
        self._argv = self._words(configured.command or self._preset.start, configured.args)
        self._resume = self._words(self._preset.resume, configured.args)
        if not self._argv:
            raise NotConfigured("runtime_config.command is not set")
        self._environ = {name: value for name, value in context.environ.items() if name not in AGENT_ONLY}
        if shutil.which(self._argv[0], path=self._environ.get("PATH")) is None:
            raise NotConfigured(f"command not found: {self._argv[0]}")
        self._timeout = configured.timeout or None
        self._cwd = context.workspace_dir if context.workspace_dir.is_dir() else context.config_dir
        self._model = context.model
        self._sessions = context.sessions
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        if self._knows_sessions:
            self._prepare(context)

    def _words(self, command: str, more: list[str]) -> list[str]:
        """Split a command; further arguments come before the dash that stands for standard input."""
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise NotConfigured(f"runtime_config.command cannot be split: {error}") from error
        at = len(words) - 1 if words[-1:] == ["-"] else len(words)
        return [*words[:at], *more, *words[at:]]

    def _prepare(self, context: AdapterContext) -> None:
        """Give the program a home of its own, and check its key."""
        preset = self._preset
        home = Path(self._environ.setdefault(preset.home, str(context.config_dir / f".{context.runtime}")))
        home.mkdir(parents=True, exist_ok=True)
        for name, usual in preset.also.items():
            if value := self._environ.get(usual):
                self._environ.setdefault(name, value)
        has_key = any(self._environ.get(name) for name in preset.keys)
        if preset.keys and not has_key and not (home / preset.login).is_file():
            raise NotConfigured(f"{context.runtime} needs {' or '.join(preset.keys)}, which is not set")

    async def run(self, task: AgentTask) -> AsyncIterator[AgentEvent]:
        """Start the program, wait for its end, and leave no process behind."""
        if not self._knows_sessions:
            ended = await self._ran(self._argv, task.text, task, "")
            yield Reply(_checked(self._argv[0], ended, PLAIN.read).text)
            return
        turn = self._turns.setdefault(task.context_id, asyncio.Lock())
        async with turn:  # two programs must not write one record
            spoken = await self._continued(task)
        yield Reply(spoken.text, spoken.usage)

    async def _continued(self, task: AgentTask) -> Spoken:
        """Continue the program's own conversation; begin one when there is none, or when it is lost."""
        session = self._sessions.session(task.context_id)
        if session:
            ended = await self._ran(self._resume, task.text, task, session)
            if ended.status == 0 or self._preset.lost not in f"{ended.written}{ended.errors}":
                return _checked(self._argv[0], ended, self._preset.read)
        fresh = str(uuid.uuid4())
        ended = await self._ran(self._argv, _introduced(task), task, fresh)
        spoken = _checked(self._argv[0], ended, self._preset.read)
        names_itself = "{new_session}" not in self._argv
        self._sessions.keep_session(task.context_id, spoken.session if names_itself else fresh)
        return spoken

    async def _ran(self, argv: list[str], text: str, task: AgentTask, session: str) -> Ended:
        process = await self._start(argv, text, task, session)
        try:
            async with asyncio.timeout(self._timeout):
                written, errors, _ = await asyncio.gather(
                    _read(process.stdout, MAX_REPLY_BYTES),
                    _read(process.stderr, MAX_ERROR_BYTES, keep_end=True),
                    _feed(process.stdin, text),
                )
                status = await process.wait()
        except TimeoutError as error:
            raise TaskFailed(f"{argv[0]} did not finish within {self._timeout:g} seconds") from error
        finally:
            await _end(process)
        return Ended(status, written, errors)

    async def _start(self, argv: list[str], text: str, task: AgentTask, session: str) -> Process:
        """Start the program in its own process group, so that its children end with it."""
        provider, _, name = self._model.rpartition(":")
        values = {
            "{prompt}": text,
            "{system_prompt}": task.system_prompt,
            "{provider}": provider,
            "{model}": name if self._knows_sessions else self._model,
            "{session}": session,
            "{new_session}": session,
        }
        takes_prompt = any("{prompt}" in word for word in argv)
        try:
            return await asyncio.create_subprocess_exec(
                *(_filled(word, values) for word in argv),
                stdin=PIPE if not takes_prompt else DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                cwd=self._cwd,
                env={**self._environ, **_facts(task)},
                process_group=0,
                preexec_fn=_die_with_agent if _libc else None,
            )
        except OSError as error:
            raise TaskFailed(f"{argv[0]} cannot be started: {error.strerror}") from error


def _introduced(task: AgentTask) -> str:
    """Return the first message of a conversation: who the agent is, what was said, what is asked."""
    return f"{task.system_prompt}\n\n---\n\n{as_text(task)}" if task.system_prompt else as_text(task)


def _checked(program: str, ended: Ended, read: Read) -> Spoken:
    spoken = read(ended.written, ended.errors)
    if ended.status != 0:
        reason = spoken.error or ended.errors or "no message"
        raise TaskFailed(f"{program} ended with status {ended.status}: {reason}")
    if spoken.error:
        raise TaskFailed(f"{program} failed: {spoken.error}")
    return spoken


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
