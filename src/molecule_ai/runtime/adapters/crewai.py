"""CrewAI: one agent of a crew, with CrewAI's own clients for the models.

CrewAI works in threads, and a thread cannot be cancelled. So whatever takes time, calls of a model and
of a tool, runs on the event loop while the thread waits for it; letting go of those ends the threads.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, ClassVar, TypeVar

# Read when the library is imported; nothing of an organization is sent to its makers.
os.environ.setdefault("CREWAI_DISABLE_TELEMETRY", "true")
os.environ.setdefault("CREWAI_TRACING_ENABLED", "false")

from crewai import Agent
from crewai.events.utils.console_formatter import set_suppress_console_output
from crewai.llms.base_llm import BaseLLM
from crewai.llms.providers.anthropic.completion import AnthropicCompletion
from crewai.llms.providers.gemini.completion import GeminiCompletion
from crewai.llms.providers.openai.completion import OpenAICompletion
from crewai.tools import BaseTool
from pydantic import BaseModel, ConfigDict, PrivateAttr

from molecule_ai.runtime.adapters.base import AdapterContext
from molecule_ai.runtime.adapters.library import Tell
from molecule_ai.runtime.adapters.providers import OPENAI_COMPATIBLE, choose
from molecule_ai.runtime.messages import AgentTask, Reply, TextDelta, Usage
from molecule_ai.runtime.tools import Tool

T = TypeVar("T")

GOAL = "Answer the message that you are given."


class CrewAI:
    """An agent for each task; the model's client is shared."""

    def __init__(self, context: AdapterContext) -> None:
        self._context = context
        self._model = _model(context)

    async def answer(self, task: AgentTask, tell: Tell) -> Reply:
        """Kick the agent off, and let go of everything when this task ends."""
        agent = Agent(
            role=self._context.role or self._context.name,
            goal=GOAL,
            backstory=task.system_prompt or self._context.name,
            llm=self._model,
            tools=[OurTool.of(tool) for tool in self._context.tools],
            max_iter=self._context.recursion_limit,
            verbose=False,
        )
        bridge = Bridge(tell)
        current_bridge.set(bridge)
        set_suppress_console_output(True)  # its panels quote what a model's API answers
        try:
            output = await agent.kickoff_async([*_history(task), {"role": "user", "content": task.text}])
        finally:
            bridge.close()
        used = output.usage_metrics or {}
        return Reply(output.raw, Usage(used.get("prompt_tokens") or 0, used.get("completion_tokens") or 0))


class Bridge:
    """Lets threads wait for work on the event loop, until the task is over."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self._loop = asyncio.get_running_loop()
        self._open: set[Future[Any]] = set()
        self._is_closed = False

    def wait(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work to its end; called in threads."""
        if self._is_closed:
            raise RuntimeError("the task is over")

        async def doing() -> T:
            return await work()

        future = asyncio.run_coroutine_threadsafe(doing(), self._loop)
        self._open.add(future)
        try:
            return future.result()
        finally:
            self._open.discard(future)

    def close(self) -> None:
        """Cancel what runs, and take no more."""
        self._is_closed = True
        for future in list(self._open):
            future.cancel()


current_bridge: ContextVar[Bridge] = ContextVar("current_bridge")


class Bridged(BaseLLM):
    """A client whose calls can be let go of, and whose words are told as they come."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model on the event loop."""
        return current_bridge.get().wait(lambda: self.acall(*args, **kwargs))

    def _emit_stream_chunk_event(self, chunk: str, *args: Any, **kwargs: Any) -> None:
        if chunk and kwargs.get("tool_call") is None:
            current_bridge.get().tell(TextDelta(chunk))


class OpenAIModel(Bridged, OpenAICompletion):
    """OpenAI, and everyone who speaks its chat completions."""


class AnthropicModel(Bridged, AnthropicCompletion):
    """Anthropic."""


class GeminiModel(Bridged, GeminiCompletion):
    """Google."""


class Arguments(BaseModel):
    """Takes what comes: our tools check their arguments themselves, and say what is wrong."""

    model_config = ConfigDict(extra="allow")
    parameters: ClassVar[dict[str, Any]]

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the tool's own schema."""
        return {"title": cls.__name__, **cls.parameters}


class OurTool(BaseTool):
    """One of our tools in CrewAI's form."""

    _tool: Tool = PrivateAttr()

    @classmethod
    def of(cls, tool: Tool) -> "OurTool":
        """Wrap a tool."""
        schema = type(f"{tool.name}_arguments", (Arguments,), {"parameters": tool.parameters})
        wrapped = cls(name=tool.name, description=tool.description, args_schema=schema)
        wrapped._tool = tool
        return wrapped

    def _run(self, **arguments: Any) -> str:
        given = {name: value for name, value in arguments.items() if value is not None}
        return current_bridge.get().wait(lambda: self._tool.call(given))


def _model(context: AdapterContext) -> BaseLLM:
    model = choose(context, {*OPENAI_COMPATIBLE, "anthropic"})
    settings = {"api_key": model.key, "stream": True, "max_tokens": context.max_tokens}
    if model.provider == "anthropic":
        return AnthropicModel(model=model.name, base_url=model.base_url or None, **settings)
    if model.provider == "google_genai":
        return GeminiModel(
            model=model.name, api_key=model.key, stream=True, max_output_tokens=context.max_tokens
        )
    return OpenAIModel(model=model.name, base_url=model.openai_url, **settings)


def _history(task: AgentTask) -> list[dict[str, str]]:
    return [
        {"role": "user" if turn.role == "user" else "assistant", "content": turn.text}
        for turn in task.history
    ]
