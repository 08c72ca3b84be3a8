"""What goes into an agent and what comes out, whatever the runtime and the protocol version."""

from typing import Any

from msgspec import Struct, field

MAX_PREVIEW = 300  # characters of a tool's output that travel in a trace


class Turn(Struct, frozen=True):
    """One earlier line of the conversation."""

    role: str
    text: str


class Incoming(Struct, frozen=True, kw_only=True):
    """A message as it arrived over A2A."""

    text: str
    message_id: str
    task_id: str
    context_id: str
    metadata: dict[str, Any] = field(default_factory=dict)
    history: tuple[Turn, ...] = ()

    @property
    def molecule(self) -> dict[str, Any] | None:
        """Return the causal chain, when the message carries one."""
        chain = self.metadata.get("molecule")
        return chain if isinstance(chain, dict) else None


class AgentTask(Struct, frozen=True, kw_only=True):
    """What an adapter is asked to do."""

    id: str
    context_id: str
    text: str
    system_prompt: str
    message_id: str = ""
    """The same when the platform repeats a message: a key for effects that must happen once."""
    history: tuple[Turn, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


class TextDelta(Struct, frozen=True):
    """A piece of the answer, for whoever reads along."""

    text: str


class ToolUsed(Struct, frozen=True):
    """A finished tool call."""

    tool: str
    input: dict[str, Any]
    output: str

    def as_trace(self) -> dict[str, Any]:
        """Return the form that `tool_trace` has on the wire (contract 05 §22)."""
        return {"tool": self.tool, "input": self.input, "output_preview": self.output[:MAX_PREVIEW]}


class Usage(Struct, frozen=True):
    """Tokens that a run has used."""

    input_tokens: int = 0
    output_tokens: int = 0


class Reply(Struct, frozen=True):
    """The whole answer; the last event of every run."""

    text: str
    usage: Usage | None = None


AgentEvent = TextDelta | ToolUsed | Reply


class Outcome(Struct, frozen=True):
    """A reply together with how it came about."""

    text: str
    tool_trace: tuple[ToolUsed, ...] = ()
    usage: Usage | None = None

    def metadata(self) -> dict[str, Any]:
        """Return what the platform reads for tracing and metering (contract 05 §1, §9)."""
        found: dict[str, Any] = {}
        if self.tool_trace:
            found["tool_trace"] = [used.as_trace() for used in self.tool_trace]
        if self.usage is not None:
            found["usage"] = {
                "input_tokens": self.usage.input_tokens,
                "output_tokens": self.usage.output_tokens,
            }
        return found


def incoming_from(params: dict[str, Any], *, task_id: str, context_id: str) -> Incoming:
    """Read the params of `message/send` (0.3) or `SendMessage` (1.0) as they were on the wire.

    The raw JSON is used because protobuf turns every number in metadata into a float, and
    the causal chain must be forwarded unchanged.
    """
    message = _mapping(params.get("message"))
    outer = _mapping(params.get("metadata"))
    return Incoming(
        text=_text(message.get("parts")),
        message_id=str(message.get("messageId") or ""),
        task_id=task_id,
        context_id=context_id,
        metadata={**outer, **_mapping(message.get("metadata"))},
        history=tuple(_turns(outer.get("history"))),
    )


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(parts: object) -> str:
    if not isinstance(parts, list):
        return ""
    return "\n".join(line for part in parts if (line := _part_text(_mapping(part))))


def _part_text(part: dict[str, Any]) -> str:
    if isinstance(part.get("text"), str):
        return str(part["text"])
    file = _mapping(part.get("file")) or (part if "url" in part or "filename" in part else {})
    if file:
        name = file.get("name") or file.get("filename") or "file"
        return f"[attached: {name} {file.get('uri') or file.get('url') or ''}]".replace(" ]", "]")
    return ""


def _turns(history: object) -> list[Turn]:
    if not isinstance(history, list):
        return []
    turns = (_mapping(item) for item in history)
    return [Turn(str(turn.get("role") or "user"), _text(turn.get("parts"))) for turn in turns]
