"""Four model APIs as they are on the wire: what is asked is read, what is answered is written.

The shapes are those of the public API references: OpenAI chat completions and Responses, Anthropic
messages, Gemini generateContent; each whole and as server-sent events.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

Json = dict[str, Any]
USED = (812, 37)  # tokens in and out, the same for every answer


@dataclass
class Asked:
    """A request to a model, whichever API it came by."""

    model: str
    stream: bool
    system: str = ""
    said: list[tuple[str, str]] = field(default_factory=list)
    """Role and text, in order; `tool` is the result of a tool."""
    tools: list[str] = field(default_factory=list)
    number: int = 0
    """Which request this is; clients tell answers apart by the ids made of it."""


@dataclass
class Say:
    """Answer with a text."""

    text: str


@dataclass
class Use:
    """Answer with the call of a tool."""

    tool: str
    arguments: Json
    id: str


Answer = Say | Use
Event = tuple[str, Json | str]


class Wire(Protocol):
    """One API."""

    def read(self, body: Json) -> Asked: ...
    def whole(self, asked: Asked, answer: Answer) -> Json: ...
    def events(self, asked: Asked, answer: Answer) -> Iterator[Event]: ...
    def error(self, status: int, text: str) -> Json: ...


def pieces(text: str) -> list[str]:
    """Cut a text in two, so that whoever reads a stream has to put it together."""
    middle = max(1, len(text) // 2)
    return [piece for piece in (text[:middle], text[middle:]) if piece]


def plain(content: Any) -> str:
    """Return the text of a content that is a string or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(part if isinstance(part, str) else str(part.get("text") or "") for part in parts)


class ChatCompletions:
    """`POST /chat/completions`."""

    def read(self, body: Json) -> Asked:
        asked = Asked(body["model"], body.get("stream", False))
        asked.tools = [tool["function"]["name"] for tool in body.get("tools", [])]
        for message in body["messages"]:
            text = plain(message.get("content"))
            if message["role"] in ("system", "developer"):
                asked.system += text
            elif text:
                asked.said.append((message["role"], text))
        return asked

    def whole(self, asked: Asked, answer: Answer) -> Json:
        message: Json = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
        if isinstance(answer, Say):
            message["content"] = answer.text
        else:
            message["tool_calls"] = [_chat_call(answer)]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _chat_end(answer)}
        return {**_chat_head(asked, "chat.completion"), "choices": [choice], "usage": _chat_usage()}

    def events(self, asked: Asked, answer: Answer) -> Iterator[Event]:
        head = {**_chat_head(asked, "chat.completion.chunk"), "usage": None}
        deltas: list[Json] = [{"role": "assistant", "content": "" if isinstance(answer, Say) else None}]
        if isinstance(answer, Say):
            deltas += [{"content": piece} for piece in pieces(answer.text)]
        else:
            call = _chat_call(answer)
            first = {**call, "function": {"name": answer.tool, "arguments": ""}}
            rest = [{"function": {"arguments": piece}} for piece in pieces(call["function"]["arguments"])]
            deltas += [{"tool_calls": [{"index": 0, **part}]} for part in (first, *rest)]
        for delta in deltas:
            yield "", {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        yield "", {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": _chat_end(answer)}]}
        yield "", {**head, "choices": [], "usage": _chat_usage()}
        yield "", "[DONE]"

    def error(self, status: int, text: str) -> Json:
        return {"error": {"message": text, "type": "invalid_request_error", "param": None, "code": None}}


def _chat_head(asked: Asked, kind: str) -> Json:
    return {"id": f"chatcmpl-{asked.number}", "object": kind, "created": 1764000000, "model": asked.model}


def _chat_call(use: Use) -> Json:
    function = {"name": use.tool, "arguments": json.dumps(use.arguments)}
    return {"id": use.id, "type": "function", "function": function}


def _chat_end(answer: Answer) -> str:
    return "stop" if isinstance(answer, Say) else "tool_calls"


def _chat_usage() -> Json:
    return {"prompt_tokens": USED[0], "completion_tokens": USED[1], "total_tokens": sum(USED)}


class Responses:
    """`POST /responses`."""

    def read(self, body: Json) -> Asked:
        asked = Asked(body["model"], body.get("stream", False), system=body.get("instructions") or "")
        asked.tools = [tool["name"] for tool in body.get("tools", []) if tool["type"] == "function"]
        items = (
            body["input"] if isinstance(body["input"], list) else [{"role": "user", "content": body["input"]}]
        )
        for item in items:
            if item.get("type") == "function_call_output":
                asked.said.append(("tool", plain(item["output"])))
            elif item.get("role") in ("system", "developer"):
                asked.system += plain(item.get("content"))
            elif "role" in item:
                asked.said.append((item["role"], plain(item.get("content"))))
        return asked

    def whole(self, asked: Asked, answer: Answer) -> Json:
        return {
            "id": f"resp_{asked.number}",
            "object": "response",
            "created_at": 1764000000,
            "status": "completed",
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "model": asked.model,
            "output": [self._item(asked, answer)],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                "input_tokens": USED[0],
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": USED[1],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": sum(USED),
            },
        }

    def events(self, asked: Asked, answer: Answer) -> Iterator[Event]:
        for number, (kind, body) in enumerate(self._steps(asked, answer)):
            yield kind, {"type": kind, "sequence_number": number, **body}

    def _steps(self, asked: Asked, answer: Answer) -> Iterator[tuple[str, Json]]:
        done = self.whole(asked, answer)
        item = done["output"][0]
        started = {**done, "status": "in_progress", "output": [], "usage": None}
        yield "response.created", {"response": started}
        yield "response.in_progress", {"response": started}
        place = {"item_id": item["id"], "output_index": 0}
        opened = {
            **item,
            "status": "in_progress",
            **({"content": []} if isinstance(answer, Say) else {"arguments": ""}),
        }
        yield "response.output_item.added", {"output_index": 0, "item": opened}
        if isinstance(answer, Say):
            at = {**place, "content_index": 0}
            empty = {"type": "output_text", "text": "", "annotations": []}
            yield "response.content_part.added", {**at, "part": empty}
            for piece in pieces(answer.text):
                yield "response.output_text.delta", {**at, "delta": piece, "logprobs": []}
            yield "response.output_text.done", {**at, "text": answer.text, "logprobs": []}
            yield "response.content_part.done", {**at, "part": item["content"][0]}
        else:
            for piece in pieces(item["arguments"]):
                yield "response.function_call_arguments.delta", {**place, "delta": piece}
            finished = {"arguments": item["arguments"], "name": answer.tool}
            yield "response.function_call_arguments.done", {**place, **finished}
        yield "response.output_item.done", {"output_index": 0, "item": item}
        yield "response.completed", {"response": done}

    def _item(self, asked: Asked, answer: Answer) -> Json:
        if isinstance(answer, Say):
            content = [{"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}]
            head = {"type": "message", "id": f"msg_{asked.number}", "status": "completed"}
            return {**head, "role": "assistant", "content": content}
        call = {"call_id": answer.id, "name": answer.tool, "arguments": json.dumps(answer.arguments)}
        return {"type": "function_call", "id": f"fc_{answer.id}", "status": "completed", **call}

    def error(self, status: int, text: str) -> Json:
        return ChatCompletions().error(status, text)


class Messages:
    """`POST /v1/messages`."""

    def read(self, body: Json) -> Asked:
        asked = Asked(body["model"], body.get("stream", False), system=plain(body.get("system")))
        asked.tools = [tool["name"] for tool in body.get("tools", [])]
        for message in body["messages"]:
            content = message["content"]
            blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
            for block in blocks:
                if block["type"] == "tool_result":
                    asked.said.append(("tool", plain(block.get("content"))))
                elif block["type"] == "text":
                    asked.said.append((message["role"], block["text"]))
        return asked

    def whole(self, asked: Asked, answer: Answer) -> Json:
        return {
            "id": f"msg_{asked.number}",
            "type": "message",
            "role": "assistant",
            "model": asked.model,
            "content": [self._block(answer)],
            "stop_reason": self._end(answer),
            "stop_sequence": None,
            "usage": self._usage(USED[1]),
        }

    def events(self, asked: Asked, answer: Answer) -> Iterator[Event]:
        for kind, body in self._steps(asked, answer):
            yield kind, {"type": kind, **body}

    def _steps(self, asked: Asked, answer: Answer) -> Iterator[tuple[str, Json]]:
        opened = {**self.whole(asked, answer), "content": [], "stop_reason": None, "usage": self._usage(1)}
        yield "message_start", {"message": opened}
        block = self._block(answer)
        empty = {**block, **({"text": ""} if isinstance(answer, Say) else {"input": {}})}
        yield "content_block_start", {"index": 0, "content_block": empty}
        yield "ping", {}
        text = answer.text if isinstance(answer, Say) else json.dumps(answer.arguments)
        for piece in pieces(text):
            if isinstance(answer, Say):
                delta = {"type": "text_delta", "text": piece}
            else:
                delta = {"type": "input_json_delta", "partial_json": piece}
            yield "content_block_delta", {"index": 0, "delta": delta}
        yield "content_block_stop", {"index": 0}
        end = {"stop_reason": self._end(answer), "stop_sequence": None}
        yield "message_delta", {"delta": end, "usage": self._usage(USED[1])}
        yield "message_stop", {}

    def _block(self, answer: Answer) -> Json:
        if isinstance(answer, Say):
            return {"type": "text", "text": answer.text}
        return {
            "type": "tool_use",
            "id": f"toolu_{answer.id}",
            "name": answer.tool,
            "input": answer.arguments,
        }

    def _end(self, answer: Answer) -> str:
        return "end_turn" if isinstance(answer, Say) else "tool_use"

    def _usage(self, output: int) -> Json:
        cache = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
        return {"input_tokens": USED[0], "output_tokens": output, **cache}

    def error(self, status: int, text: str) -> Json:
        return {"type": "error", "error": {"type": "invalid_request_error", "message": text}}


class GenerateContent:
    """`POST /v1beta/models/NAME:generateContent`, and `:streamGenerateContent?alt=sse`."""

    def read(self, body: Json) -> Asked:
        instruction = body.get("systemInstruction") or {}
        asked = Asked(body["model"], body["stream"], system=plain(instruction.get("parts")))
        groups = [tool.get("functionDeclarations", []) for tool in body.get("tools", [])]
        asked.tools = [declared["name"] for group in groups for declared in group]
        for content in body["contents"]:
            for part in content["parts"]:
                if "functionResponse" in part:
                    response = part["functionResponse"]["response"]
                    asked.said.append(("tool", str(response.get("result", response))))
                elif "text" in part:
                    role = "assistant" if content.get("role") == "model" else "user"
                    asked.said.append((role, part["text"]))
        return asked

    def whole(self, asked: Asked, answer: Answer) -> Json:
        if isinstance(answer, Say):
            part: Json = {"text": answer.text}
        else:
            part = {"functionCall": {"name": answer.tool, "args": answer.arguments}}
        return {**self._chunk(asked, [part], "STOP"), "usageMetadata": self._usage()}

    def events(self, asked: Asked, answer: Answer) -> Iterator[Event]:
        if isinstance(answer, Say):
            for piece in pieces(answer.text)[:-1]:
                yield "", self._chunk(asked, [{"text": piece}], None)
            answer = Say(pieces(answer.text)[-1])
        yield "", self.whole(asked, answer)

    def _chunk(self, asked: Asked, parts: list[Json], end: str | None) -> Json:
        candidate: Json = {"content": {"role": "model", "parts": parts}, "index": 0}
        if end:
            candidate["finishReason"] = end
        return {"candidates": [candidate], "modelVersion": asked.model, "responseId": f"r-{asked.number}"}

    def _usage(self) -> Json:
        counts = {"promptTokenCount": USED[0], "candidatesTokenCount": USED[1]}
        return {**counts, "totalTokenCount": sum(USED)}

    def error(self, status: int, text: str) -> Json:
        return {"error": {"code": status, "message": text, "status": "INVALID_ARGUMENT"}}
