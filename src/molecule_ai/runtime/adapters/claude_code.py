"""Claude Code through its Agent SDK, whose wheel brings the program along.

The program keeps conversations itself. They live below the config directory, so that a workspace has
its own, and its operator's login and settings stay out of reach.
"""

import asyncio
from typing import Any
from weakref import WeakValueDictionary

from claude_agent_sdk import (
    AssistantMessage,
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ClaudeSDKError,
    ProcessError,
    ResultMessage,
    SdkMcpTool,
    StreamEvent,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
    create_sdk_mcp_server,
)

from molecule_ai.runtime.adapters.base import AdapterContext, TaskFailed
from molecule_ai.runtime.adapters.library import Tell
from molecule_ai.runtime.adapters.providers import as_text, split
from molecule_ai.runtime.messages import AgentTask, Reply, TextDelta, ToolUsed, Usage
from molecule_ai.runtime.preflight import NotConfigured
from molecule_ai.runtime.tools import Tool

SERVER = "molecule"
OURS = f"mcp__{SERVER}__"
CREDENTIALS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
)
# What works without a person at a terminal. Its own schedules and messages are left to the platform.
FILES = ("Edit", "Glob", "Grep", "NotebookEdit", "Read", "Write")
WORK = ("Agent", "Bash", "Skill", "TaskCreate", "TaskGet", "TaskList", "TaskUpdate", "WebFetch", "WebSearch")
INTERRUPT_SECONDS = 2.0
SWITCHES = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "ENABLE_TOOL_SEARCH": "false",  # our tools are few, and every model should see them
}


class ClaudeCode:
    """One program for each task; a task continues the program's own record of its context."""

    def __init__(self, context: AdapterContext) -> None:
        if not any(context.environ.get(name) for name in CREDENTIALS):
            raise NotConfigured(f"claude-code needs one of {', '.join(CREDENTIALS)}, and none is set")
        self._context = context
        self._model = _model(context.model)
        self._tools = [_sdk_tool(tool) for tool in context.tools]
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def answer(self, task: AgentTask, tell: Tell) -> Reply:
        """Ask the program, and keep the name under which it remembers."""
        turn = self._turns.setdefault(task.context_id, asyncio.Lock())
        async with turn:  # two programs must not write one record
            session = self._context.sessions.session(task.context_id)
            try:
                result = await self._asked(task, tell, session)
            except ProcessError as error:
                if not session or "No conversation found" not in str(error):
                    raise
                result = await self._asked(task, tell, "")
            self._context.sessions.keep_session(task.context_id, result.session_id)
        return Reply(result.result or "", _usage(result))

    async def _asked(self, task: AgentTask, tell: Tell, session: str) -> ResultMessage:
        written: list[str] = []
        text = task.text if session else as_text(task)
        watch = Progress(tell)
        try:
            async with ClaudeSDKClient(self._options(task, session, written)) as client:
                await client.query(text)
                try:
                    async for message in client.receive_response():
                        watch.saw(message)
                        if isinstance(message, ResultMessage):
                            return _checked(message)
                except asyncio.CancelledError:
                    async with asyncio.timeout(INTERRUPT_SECONDS):
                        await client.interrupt()  # else it would finish its request to the model first
                    raise
        except ProcessError:
            raise
        except ClaudeSDKError as error:
            raise TaskFailed(f"Claude Code failed: {error}{_tail(written)}") from error
        raise TaskFailed(f"Claude Code ended without a result{_tail(written)}")

    def _options(self, task: AgentTask, session: str, written: list[str]) -> ClaudeAgentOptions:
        context, config = self._context, self._context.config
        return ClaudeAgentOptions(
            model=self._model,
            system_prompt={"type": "preset", "preset": "claude_code", "append": task.system_prompt},
            mcp_servers={SERVER: create_sdk_mcp_server(SERVER, tools=self._tools)},
            strict_mcp_config=True,
            tools=[*FILES, *WORK],
            allowed_tools=[*FILES, *WORK, f"mcp__{SERVER}"],
            permission_mode="dontAsk",  # nobody could answer
            setting_sources=["project"],
            max_turns=context.recursion_limit,
            effort=config.effort or None,
            task_budget={"total": config.task_budget} if config.task_budget else None,
            resume=session or None,
            cwd=context.workspace_dir if context.workspace_dir.is_dir() else context.config_dir,
            env={**SWITCHES, "CLAUDE_CONFIG_DIR": str(context.config_dir / ".claude")},
            include_partial_messages=True,
            stderr=written.append,
        )


class Progress:
    """Tells what the program is doing."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._uses: dict[str, ToolUseBlock] = {}

    def saw(self, message: Any) -> None:
        """Pass on words of the main conversation, and the program's own tools as they end."""
        if isinstance(message, StreamEvent) and message.parent_tool_use_id is None:
            delta = message.event.get("delta", {})
            if delta.get("type") == "text_delta":
                self._tell(TextDelta(delta["text"]))
        elif isinstance(message, AssistantMessage):
            uses = [block for block in message.content if isinstance(block, ToolUseBlock)]
            self._uses |= {use.id: use for use in uses if not use.name.startswith(OURS)}
        elif isinstance(message, UserMessage) and isinstance(message.content, list):
            for block in message.content:
                if isinstance(block, ToolResultBlock) and (use := self._uses.pop(block.tool_use_id, None)):
                    self._tell(ToolUsed(use.name, use.input, str(block.content)))


def _model(written: str) -> str:
    """Return the program's name of a model; its short names need no provider."""
    if ":" not in written and "/" not in written:
        return written
    provider, name = split(written)
    if provider != "anthropic":
        raise NotConfigured(f"the claude-code runtime has no model {written!r}; it takes anthropic:…")
    return name


def _checked(result: ResultMessage) -> ResultMessage:
    if not result.is_error:
        return result
    said = result.result or "; ".join(result.errors or ()) or result.subtype
    if result.subtype == "error_max_turns":
        said = f"no answer within {result.num_turns} steps"
    raise (ProcessError if "No conversation found" in said else TaskFailed)(f"Claude Code failed: {said}")


def _usage(result: ResultMessage) -> Usage:
    used = result.usage or {}
    cached = ("cache_creation_input_tokens", "cache_read_input_tokens")
    read = sum(int(used.get(name) or 0) for name in ("input_tokens", *cached))
    return Usage(read, int(used.get("output_tokens") or 0))


def _tail(written: list[str]) -> str:
    text = "\n".join(written[-5:]).strip()
    return f": {text}" if text else ""


def _sdk_tool(tool: Tool) -> SdkMcpTool[Any]:
    async def call(arguments: dict[str, Any]) -> dict[str, Any]:
        return {"content": [{"type": "text", "text": await tool.call(arguments)}]}

    return SdkMcpTool(tool.name, tool.description, tool.parameters, call)
