"""Google's Agent Development Kit with Gemini, or with Claude."""

from contextlib import aclosing
from typing import Any

from google.adk.agents import LlmAgent, RunConfig
from google.adk.agents.invocation_context import LlmCallsLimitExceededError
from google.adk.agents.run_config import StreamingMode
from google.adk.events import Event
from google.adk.models import BaseLlm, Gemini
from google.adk.runners import InMemoryRunner
from google.adk.tools import BaseTool
from google.genai.types import Content, FunctionDeclaration, GenerateContentConfig, Part

from molecule_ai.runtime.adapters.base import AdapterContext, TaskFailed
from molecule_ai.runtime.adapters.library import Tell
from molecule_ai.runtime.adapters.providers import choose
from molecule_ai.runtime.messages import AgentTask, Reply, TextDelta, Turn, Usage
from molecule_ai.runtime.tools import Tool

APP = "molecule"
AGENT = "agent"
USER = "user"
PROVIDERS = ("google_genai", "anthropic")


class GoogleADK:
    """One model for all tasks, an agent with its own instruction for each."""

    def __init__(self, context: AdapterContext) -> None:
        self._config = RunConfig(streaming_mode=StreamingMode.SSE, max_llm_calls=context.recursion_limit)
        self._settings = GenerateContentConfig(max_output_tokens=context.max_tokens)
        self._model = _model(context)
        self._tools = [OurTool(tool) for tool in context.tools]

    async def answer(self, task: AgentTask, tell: Tell) -> Reply:
        """Run the agent to its final response."""
        agent = LlmAgent(
            name=AGENT,
            model=self._model,
            instruction=lambda _: task.system_prompt,  # a text would have its {braces} filled in
            generate_content_config=self._settings,
            tools=list(self._tools),
        )
        runner = InMemoryRunner(agent, app_name=APP)
        session = await runner.session_service.create_session(app_name=APP, user_id=USER)
        for turn in task.history:
            await runner.session_service.append_event(session, _event(turn))
        progress = Progress(tell)
        running = runner.run_async(
            user_id=USER, session_id=session.id, new_message=_said(USER, task.text), run_config=self._config
        )
        try:
            async with aclosing(running) as events:
                async for event in events:
                    progress.saw(event)
        except LlmCallsLimitExceededError as error:
            raise TaskFailed(f"no answer within {self._config.max_llm_calls} steps") from error
        return Reply(progress.text, progress.usage)


class Progress:
    """Turns the kit's events into ours."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.text = ""
        self.usage = Usage()

    def saw(self, event: Event) -> None:
        """Tell pieces of the answer, and keep the whole one and the tokens."""
        if event.error_code and not event.content:
            raise TaskFailed(f"the model failed: {event.error_code}: {event.error_message or 'no message'}")
        text = "".join(part.text or "" for part in _parts(event) if not part.thought)
        if event.partial:
            if text:
                self._tell(TextDelta(text))
            return
        if event.is_final_response():
            self.text = text
        if (used := event.usage_metadata) is not None:
            self.usage = Usage(
                self.usage.input_tokens + (used.prompt_token_count or 0),
                self.usage.output_tokens + (used.candidates_token_count or 0),
            )


class OurTool(BaseTool):
    """One of our tools in the kit's form."""

    def __init__(self, tool: Tool) -> None:
        super().__init__(name=tool.name, description=tool.description)
        self._tool = tool

    def _get_declaration(self) -> FunctionDeclaration:
        return FunctionDeclaration(
            name=self.name, description=self.description, parameters_json_schema=self._tool.parameters
        )

    async def run_async(self, *, args: dict[str, Any], tool_context: Any) -> dict[str, str]:
        return {"result": await self._tool.call(args)}


def _model(context: AdapterContext) -> BaseLlm:
    model = choose(context, PROVIDERS)
    if model.provider == "google_genai":
        return Gemini(model=model.name, client_kwargs={"api_key": model.key}, base_url=model.base_url or None)
    from anthropic import AsyncAnthropic  # half a second that Gemini need not pay
    from google.adk.models.anthropic_llm import AnthropicLlm

    client = AsyncAnthropic(api_key=model.key, base_url=model.base_url or None)
    return AnthropicLlm(model=model.name, max_tokens=context.max_tokens, client=client)


def _event(turn: Turn) -> Event:
    author = USER if turn.role == "user" else AGENT
    return Event(author=author, content=_said(USER if author == USER else "model", turn.text))


def _said(role: str, text: str) -> Content:
    return Content(role=role, parts=[Part(text=text)])


def _parts(event: Event) -> list[Part]:
    return (event.content.parts or []) if event.content else []
