"""What every runtime that stands on an agent library shares; the library itself is loaded late.

A runtime of this kind is one file with one class: its constructor takes the context and raises
NotConfigured, `answer` turns a task into a reply. Everything else happens here: a library that is not
installed, streaming, the trace of tool calls, limits, cancellation, and errors in plain words.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from molecule_ai.runtime.adapters.base import AdapterContext, Capabilities, TaskFailed
from molecule_ai.runtime.lean import load_module
from molecule_ai.runtime.messages import AgentEvent, AgentTask, Reply, ToolUsed
from molecule_ai.runtime.preflight import NotConfigured
from molecule_ai.runtime.tools import Tool

OFFLINE = "offline:"
MAX_REASON = 2000

Tell = Callable[[AgentEvent], None]


class Library(Struct, frozen=True):
    """Where a runtime lives and what it needs."""

    target: str
    """Our module and class; importing the module imports the library."""
    packages: tuple[str, ...]
    extra: str = ""
    offline: bool = False
    """Whether it runs the offline model, for which nothing is loaded before the first task."""


class LibraryRuntime(Protocol):
    """The class that a runtime's file provides."""

    async def answer(self, task: AgentTask, tell: Tell) -> Reply:
        """Work on one task; `tell` takes what is known before the end."""
        ...


class LibraryAdapter:
    """A RuntimeAdapter around a LibraryRuntime."""

    capabilities = Capabilities()

    def __init__(self, runtime: str, library: Library) -> None:
        self._name = runtime
        self._library = library
        self._runtime: LibraryRuntime | None = None
        self._building = asyncio.Lock()

    async def setup(self, context: AdapterContext) -> None:
        """Check the library, then the model and its key by building what needs them."""
        missing = [name for name in self._library.packages if not is_installed(name)]
        if missing:
            raise NotConfigured(self._missing(missing))
        limit = context.config.compliance.max_tool_calls_per_task
        watched = tuple(_watched(tool, limit) for tool in context.tools)
        self._context = msgspec.structs.replace(context, tools=watched)
        self._timeout = context.config.runtime_config.timeout or None
        if not (self._library.offline and context.model.startswith(OFFLINE)):
            await self._ready()

    async def run(self, task: AgentTask) -> AsyncIterator[AgentEvent]:
        """Yield what the runtime tells, then its reply; nothing of it goes on after the end."""
        runtime = await self._ready()
        events: asyncio.Queue[AgentEvent | None] = asyncio.Queue()
        answering = asyncio.create_task(self._answer(runtime, task, events.put_nowait))
        answering.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            yield answering.result()
        finally:
            answering.cancel()
            with contextlib.suppress(asyncio.CancelledError, TaskFailed, NotConfigured):
                await answering

    async def _answer(self, runtime: LibraryRuntime, task: AgentTask, tell: Tell) -> Reply:
        current_watch.set(Watch(tell))
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                return await runtime.answer(task, tell)
        except (TaskFailed, NotConfigured):
            raise
        except Exception as error:
            if limit.expired():
                raise TaskFailed(f"no answer within {self._timeout:g} seconds") from error
            raise TaskFailed(f"{self._name}: {reason(error)}") from error

    async def _ready(self) -> LibraryRuntime:
        async with self._building:
            if self._runtime is None:
                path, _, name = self._library.target.partition(":")
                try:
                    module = await load_module(path)
                except ImportError as error:
                    raise NotConfigured(f"the library of {self._name} cannot be loaded: {error}") from error
                self._runtime = getattr(module, name)(self._context)
            return self._runtime

    def _missing(self, packages: list[str]) -> str:
        text = f"the {self._name} runtime needs the package(s) {', '.join(packages)}"
        return f"{text}; install them with: pip install 'molecule-ai[{self._library.extra}]'"


class Watch:
    """Sees the tool calls of one task."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self.calls = 0


current_watch: ContextVar[Watch | None] = ContextVar("current_watch", default=None)


def _watched(tool: Tool, limit: int) -> Tool:
    """Count and trace the calls of a tool, whichever way a library makes them."""

    async def call(arguments: dict[str, Any]) -> str:
        watch = current_watch.get()
        if watch is None:
            return await tool.call(arguments)
        watch.calls += 1
        if limit and watch.calls > limit:
            return f"Error: this task has used all of its {limit} tool calls; answer with what you know."
        output = await tool.call(arguments)
        watch.tell(ToolUsed(tool.name, arguments, output))
        return output

    return msgspec.structs.replace(tool, call=call)


def is_installed(package: str) -> bool:
    """Say whether a package could be imported, without doing so."""
    try:
        return find_spec(package) is not None
    except ImportError:  # a parent package is missing
        return False


def reason(error: BaseException) -> str:
    """Return what went wrong, from the innermost of grouped errors, in one bounded text."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    text = str(error).strip()
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__)[:MAX_REASON]
