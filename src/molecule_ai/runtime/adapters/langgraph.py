"""LangGraph's agent loop with any chat model that `init_chat_model` knows, or the offline one."""

from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware.types import InputAgentState
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    AnyMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.errors import GraphRecursionError

from molecule_ai.runtime.adapters.base import AdapterContext, TaskFailed
from molecule_ai.runtime.adapters.library import Tell
from molecule_ai.runtime.adapters.providers import require_key, split
from molecule_ai.runtime.messages import AgentEvent, AgentTask, Reply, TextDelta, ToolUsed, Turn, Usage
from molecule_ai.runtime.offline.model import OfflineChatModel
from molecule_ai.runtime.preflight import NotConfigured
from molecule_ai.runtime.tools import Tool

MODEL_NODE = "model"


class LangGraph:
    """One compiled graph for all tasks; the system prompt travels with each of them."""

    def __init__(self, context: AdapterContext) -> None:
        self._limit = context.recursion_limit
        self._ours = frozenset(tool.name for tool in context.tools)
        self._graph = self.compiled(context)

    def compiled(self, context: AdapterContext) -> Any:
        """Return the graph to run."""
        return create_agent(chat_model(context), [langchain_tool(tool) for tool in context.tools])

    async def answer(self, task: AgentTask, tell: Tell) -> Reply:
        """Tell text as it is written and the library's own tools as they end; return the reply."""
        progress = Progress(self._ours)
        try:
            async for mode, chunk in self._graph.astream(
                InputAgentState(messages=_conversation(task)),
                config=RunnableConfig(recursion_limit=self._limit),
                stream_mode=["updates", "messages"],
            ):
                events = progress.updated(chunk) if mode == "updates" else progress.written(chunk)
                for event in events:
                    tell(event)
        except GraphRecursionError as error:
            raise TaskFailed(f"no answer within {self._limit} steps") from error
        return Reply(progress.text, progress.usage)


class Progress:
    """Turns what the graph streams into our events."""

    def __init__(self, ours: frozenset[str]) -> None:
        self._ours = ours  # traced where they are called
        self.text = ""
        self.usage: Usage | None = None
        self._arguments: dict[str, dict[str, Any]] = {}

    def written(self, chunk: Any) -> list[AgentEvent]:
        """Pass the model's words on as they come."""
        message, metadata = chunk
        if metadata.get("langgraph_node") != MODEL_NODE or not isinstance(message, AIMessageChunk):
            return []
        return [TextDelta(str(message.text))] if message.text else []

    def updated(self, chunk: Any) -> list[AgentEvent]:
        """Note what a finished step of the graph has added."""
        events: list[AgentEvent] = []
        for update in chunk.values():
            for message in (update or {}).get("messages", ()):
                if isinstance(message, AIMessage):
                    self._answered(message)
                elif isinstance(message, ToolMessage) and message.name not in self._ours:
                    arguments = self._arguments.get(message.tool_call_id, {})
                    events.append(ToolUsed(message.name or "", arguments, str(message.text)))
        return events

    def _answered(self, message: AIMessage) -> None:
        self.text = str(message.text)
        self._arguments |= {call["id"]: call["args"] for call in message.tool_calls if call["id"]}
        if (used := message.usage_metadata) is not None:
            known = self.usage or Usage()
            self.usage = Usage(
                known.input_tokens + used["input_tokens"], known.output_tokens + used["output_tokens"]
            )


def chat_model(context: AdapterContext) -> BaseChatModel:
    """Build the model, which proves that it can be used."""
    provider, name = split(context.model)
    if provider == "offline":
        return OfflineChatModel(agent_name=context.name, agent_role=context.role)
    require_key(context)
    try:
        model = init_chat_model(name, model_provider=provider, max_tokens=context.max_tokens)
    except ImportError as error:
        raise NotConfigured(f"model {context.model} needs another package: {error}") from error
    except Exception as error:  # every provider raises its own kind for a bad name or a missing key
        raise NotConfigured(f"model {context.model} cannot be used: {error}") from error
    return model


def _conversation(task: AgentTask) -> list[AnyMessage | dict[str, Any]]:
    system = [SystemMessage(task.system_prompt)] if task.system_prompt else []
    return [*system, *(_turn(turn) for turn in task.history if turn.text), HumanMessage(task.text)]


def _turn(turn: Turn) -> AnyMessage:
    return HumanMessage(turn.text) if turn.role == "user" else AIMessage(turn.text)


def langchain_tool(tool: Tool) -> BaseTool:
    """Offer one of our tools in LangChain's form."""

    async def call(**arguments: Any) -> str:
        return await tool.call(arguments)

    return StructuredTool(
        name=tool.name, description=tool.description, args_schema=tool.parameters, coroutine=call
    )
