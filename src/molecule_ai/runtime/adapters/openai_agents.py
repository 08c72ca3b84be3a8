"""The OpenAI Agents SDK: Responses for OpenAI, chat completions for everyone who speaks them."""

import json
from typing import Any

from agents import (
    Agent,
    AgentsException,
    FunctionTool,
    MaxTurnsExceeded,
    Model,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
)
from openai import AsyncOpenAI

from molecule_ai.runtime.adapters.base import AdapterContext, TaskFailed
from molecule_ai.runtime.adapters.library import Tell
from molecule_ai.runtime.adapters.providers import OPENAI_COMPATIBLE, choose
from molecule_ai.runtime.messages import AgentTask, Reply, TextDelta, Usage
from molecule_ai.runtime.tools import Tool

TEXT = "response.output_text.delta"  # the SDK translates chat completions into events of Responses


class OpenAIAgents:
    """One model for all tasks, an agent with its own instructions for each."""

    def __init__(self, context: AdapterContext) -> None:
        self._name = context.name
        self._turns = context.recursion_limit
        self._settings = ModelSettings(max_tokens=context.max_tokens)
        self._model = _model(context)
        self._tools = [_function_tool(tool) for tool in context.tools]

    async def answer(self, task: AgentTask, tell: Tell) -> Reply:
        """Run the agent to its final output."""
        agent = Agent(
            name=self._name,
            instructions=task.system_prompt or None,
            model=self._model,
            model_settings=self._settings,
            tools=list(self._tools),
        )
        # Traces would go to the vendor.
        config = RunConfig(tracing_disabled=True, trace_include_sensitive_data=False)
        run = Runner.run_streamed(agent, _conversation(task), max_turns=self._turns, run_config=config)
        try:
            async for event in run.stream_events():
                if event.type == "raw_response_event" and event.data.type == TEXT:
                    tell(TextDelta(event.data.delta))
        except MaxTurnsExceeded as error:
            raise TaskFailed(f"no answer within {self._turns} steps") from error
        except AgentsException as error:
            raise TaskFailed(f"the agent could not answer: {error}") from error
        finally:
            run.cancel()  # ends what still runs when this task is cancelled
        used = run.context_wrapper.usage
        return Reply(str(run.final_output or ""), Usage(used.input_tokens, used.output_tokens))


def _model(context: AdapterContext) -> Model:
    model = choose(context, OPENAI_COMPATIBLE)
    client = AsyncOpenAI(api_key=model.key, base_url=model.openai_url)
    kind = OpenAIResponsesModel if model.provider == "openai" else OpenAIChatCompletionsModel
    return kind(model=model.name, openai_client=client)


def _conversation(task: AgentTask) -> list[Any]:
    turns = [
        {"role": "user" if turn.role == "user" else "assistant", "content": turn.text}
        for turn in task.history
    ]
    return [*turns, {"role": "user", "content": task.text}]


def _function_tool(tool: Tool) -> FunctionTool:
    async def invoke(_: Any, arguments: str) -> str:
        return await tool.call(json.loads(arguments or "{}"))

    return FunctionTool(
        name=tool.name,
        description=tool.description,
        params_json_schema=tool.parameters,
        on_invoke_tool=invoke,
        strict_json_schema=False,  # strict schemas know no defaults
    )
