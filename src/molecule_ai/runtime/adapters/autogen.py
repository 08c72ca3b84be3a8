"""AutoGen's assistant agent with its clients for OpenAI's and Anthropic's models."""

from collections.abc import Mapping
from typing import Any

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import TaskResult
from autogen_agentchat.messages import ModelClientStreamingChunkEvent, ToolCallSummaryMessage
from autogen_core import CancellationToken
from autogen_core.model_context import UnboundedChatCompletionContext
from autogen_core.models import AssistantMessage, ChatCompletionClient, ModelInfo, UserMessage
from autogen_core.tools import BaseTool, ParametersSchema, ToolSchema
from pydantic import BaseModel

from molecule_ai.runtime.adapters.base import AdapterContext, TaskFailed
from molecule_ai.runtime.adapters.library import Tell
from molecule_ai.runtime.adapters.providers import OPENAI_COMPATIBLE, choose
from molecule_ai.runtime.messages import AgentTask, Reply, TextDelta, Turn, Usage
from molecule_ai.runtime.tools import Tool

AGENT = "agent"
USER = "user"
# What every model of these days can do; the library knows the names of yesterday's.
MODEL = ModelInfo(
    vision=True, function_calling=True, json_output=True, family="unknown", structured_output=True
)


class AutoGen:
    """One client for all tasks, an agent with its own system message for each."""

    def __init__(self, context: AdapterContext) -> None:
        self._turns = context.recursion_limit
        self._client = _client(context)
        self._tools = [OurTool(tool) for tool in context.tools]

    async def answer(self, task: AgentTask, tell: Tell) -> Reply:
        """Run the agent to its last message."""
        agent = AssistantAgent(
            AGENT,
            self._client,
            tools=list(self._tools),
            system_message=task.system_prompt or None,
            model_context=UnboundedChatCompletionContext([_message(turn) for turn in task.history]),
            model_client_stream=True,
            max_tool_iterations=self._turns,
            reflect_on_tool_use=False,
        )
        cancellation, usage, result = CancellationToken(), Usage(), None
        try:
            async for event in agent.run_stream(task=task.text, cancellation_token=cancellation):
                if isinstance(event, TaskResult):
                    result = event
                elif isinstance(event, ModelClientStreamingChunkEvent):
                    tell(TextDelta(event.content))
                elif (used := event.models_usage) is not None:
                    usage = Usage(
                        usage.input_tokens + used.prompt_tokens, usage.output_tokens + used.completion_tokens
                    )
        finally:
            cancellation.cancel()
        last = result.messages[-1] if result and result.messages else None
        if last is None or isinstance(last, ToolCallSummaryMessage):
            raise TaskFailed(f"no answer within {self._turns} steps")
        return Reply(last.to_text(), usage)


class Arguments(BaseModel):
    """Stands where the library wants a model; the schema of a tool is its own."""


class OurTool(BaseTool[Arguments, str]):
    """One of our tools in AutoGen's form."""

    def __init__(self, tool: Tool) -> None:
        super().__init__(Arguments, str, tool.name, tool.description)
        self._tool = tool

    @property
    def schema(self) -> ToolSchema:
        """Return the tool's own schema."""
        given = self._tool.parameters
        parameters = ParametersSchema(
            type="object",
            properties=given["properties"],
            required=given["required"],
            additionalProperties=False,
        )
        return ToolSchema(name=self.name, description=self.description, parameters=parameters, strict=False)

    async def run(self, args: Arguments, cancellation_token: CancellationToken) -> str:
        """Satisfy the base class, which calls `run_json`."""
        return await self._tool.call(args.model_dump())

    async def run_json(
        self, args: Mapping[str, Any], cancellation_token: CancellationToken, call_id: str | None = None
    ) -> str:
        """Call the tool with the arguments as they came."""
        return await self._tool.call(dict(args))


def _client(context: AdapterContext) -> ChatCompletionClient:
    model = choose(context, {*OPENAI_COMPATIBLE, "anthropic"})
    settings = {
        "model": model.name,
        "api_key": model.key,
        "model_info": MODEL,
        "max_tokens": context.max_tokens,
    }
    if model.provider == "anthropic":
        from autogen_ext.models.anthropic import AnthropicChatCompletionClient

        where = {"base_url": model.base_url} if model.base_url else {}
        return AnthropicChatCompletionClient(**settings, **where)
    from autogen_ext.models.openai import OpenAIChatCompletionClient

    return OpenAIChatCompletionClient(
        **settings,
        base_url=model.openai_url,
        include_name_in_message=False,
        stream_options={"include_usage": True},
    )


def _message(turn: Turn) -> UserMessage | AssistantMessage:
    if turn.role == "user":
        return UserMessage(content=turn.text, source=USER)
    return AssistantMessage(content=turn.text, source=AGENT)
