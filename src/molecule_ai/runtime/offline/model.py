"""The offline plan as a LangChain chat model, so that it runs where any model runs."""

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from molecule_ai.runtime.offline.plan import Done, Persona, Use, decide


class OfflineChatModel(BaseChatModel):
    """Deterministic, and honest about it."""

    agent_name: str
    agent_role: str = ""
    tool_names: frozenset[str] = frozenset()

    @property
    def _llm_type(self) -> str:
        return "molecule-offline"

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return a model that may use these tools."""
        names = frozenset(convert_to_openai_tool(tool)["function"]["name"] for tool in tools)
        return self.model_copy(update={"tool_names": names})

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        persona = Persona(self.agent_name, self.agent_role)
        step = decide(persona, _last_request(messages), _finished(messages), self.tool_names)
        if isinstance(step, str):
            message = AIMessage(step)
        else:
            message = AIMessage("", tool_calls=[_call(use, len(messages), at) for at, use in enumerate(step)])
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages, stop)  # nothing here blocks, so no thread is needed


def _call(use: Use, turn: int, index: int) -> dict[str, Any]:
    return {"name": use.tool, "args": use.arguments, "id": f"call_{turn}_{index}", "type": "tool_call"}


def _since_request(messages: list[BaseMessage]) -> int:
    return max((at for at, message in enumerate(messages) if isinstance(message, HumanMessage)), default=-1)


def _last_request(messages: list[BaseMessage]) -> str:
    at = _since_request(messages)
    return "" if at < 0 else str(messages[at].text)


def _finished(messages: list[BaseMessage]) -> list[Done]:
    recent = messages[_since_request(messages) + 1 :]
    asked = {
        call["id"]: call
        for message in recent
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    }
    answered = [message for message in recent if isinstance(message, ToolMessage)]
    return [
        Done(call["name"], call["args"], str(message.text))
        for message in answered
        if (call := asked.get(message.tool_call_id))
    ]
