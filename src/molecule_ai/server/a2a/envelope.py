"""A2A messages as JSON: made, put into one form, marked with their chain, and read (contract 05 §1, §2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from molecule_ai.server.mailbox.chain import METADATA_KEY, Chain, claimed

from .errors import InvalidJson, PartsRequired

Level = dict[str, Raw | Any]
_encoder = msgspec.json.Encoder()
_level = msgspec.json.Decoder(dict[str, Raw])


def message(text: str, *, message_id: str, metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A `message/send` request with one text part; its JSON-RPC id is the message's."""
    said: dict[str, Any] = {
        "kind": "message",
        "role": "user",
        "messageId": message_id,
        "parts": [{"kind": "text", "text": text}],
    }
    if metadata:
        said["metadata"] = dict(metadata)
    return {"jsonrpc": "2.0", "id": message_id, "method": "message/send", "params": {"message": said}}


def stamped(body: dict[str, Any], chain: Chain, *, message_id: str) -> dict[str, Any]:
    """`body` with its chain, and with `message_id` unless the message has its own."""
    said = message_of(body)
    if said is None:
        return body
    metadata = said.get("metadata")
    marked = {**(metadata if isinstance(metadata, dict) else {}), METADATA_KEY: chain.metadata()}
    said = {**said, "messageId": said.get("messageId") or message_id, "metadata": marked}
    return {**body, "params": {**body["params"], "message": said}}


def message_of(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """`params.message` when it is an object."""
    params = body.get("params")
    said = params.get("message") if isinstance(params, dict) else None
    return said if isinstance(said, dict) else None


def reply_text(body: Mapping[str, Any]) -> str:
    """What an answer says: the text parts of the first place that has any, else the raw body."""
    texts = next((found for parts in _places(body.get("result")) if (found := _texts(parts))), None)
    return "\n".join(texts) if texts else _encoder.encode(body).decode()


def has_content(body: Mapping[str, Any]) -> bool:
    """Whether an answer carries any text or file (contract 03 §3.7)."""
    for parts in _places(body.get("result")):
        if any(text.strip() for text in _texts(parts)):
            return True
        if any(isinstance(part, dict) and ("file" in part or "url" in part) for part in parts):
            return True
    return False


def rpc_error(body: Mapping[str, Any]) -> str | None:
    """The text of a JSON-RPC error, None when the answer is a result."""
    error = body.get("error")
    if error is None or "result" in body:
        return None
    if isinstance(error, dict):
        return str(error.get("message") or error.get("code") or "agent error")
    return str(error)


def _places(result: Any) -> Iterator[list[Any]]:
    """Where agents put their answer, in both versions of the protocol."""
    if isinstance(result, str):
        yield [{"kind": "text", "text": result}]
    if not isinstance(result, dict):
        return
    for holder in (result, result.get("task")):
        if not isinstance(holder, dict):
            continue
        yield _list(holder.get("parts"))
        yield [
            part
            for a in _list(holder.get("artifacts"))
            if isinstance(a, dict)
            for part in _list(a.get("parts"))
        ]
        yield _parts_of(holder.get("message"))
        status = holder.get("status")
        yield _parts_of(status.get("message") if isinstance(status, dict) else None)


def _parts_of(said: Any) -> list[Any]:
    return _list(said.get("parts")) if isinstance(said, dict) else []


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(parts: list[Any]) -> list[str]:
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]


class Draft:
    """A request on its way: normalized, with everything that was not touched kept byte for byte."""

    def __init__(self, top: Level, params: Level | None, said: Level | None, value: dict[str, Any]) -> None:
        self._top = top
        self._params = params
        self._said = said
        method = value.get("method")
        self.method: str = method if isinstance(method, str) else ""
        self.value = value
        """The request as plain JSON, normalized too, for whoever looks into it."""

    @property
    def message(self) -> dict[str, Any] | None:
        return message_of(self.value)

    @property
    def message_id(self) -> str:
        """The messageId; "" for methods without a message."""
        return str((self.message or {}).get("messageId", ""))

    @property
    def claimed_chain(self) -> Chain | None:
        return claimed(self.message)

    def mark(self, chain: Chain) -> None:
        """Write the chain into the message's metadata, over whatever the caller wrote there."""
        if self._said is None or (said := self.message) is None:
            return
        metadata = said.get("metadata")
        said["metadata"] = {
            **(metadata if isinstance(metadata, dict) else {}),
            METADATA_KEY: chain.metadata(),
        }
        self._said["metadata"] = said["metadata"]

    def encode(self) -> bytes:
        """The bytes for the agent."""
        if self._params is not None:
            if self._said is not None:
                self._params["message"] = self._said
            self._top["params"] = self._params
        return _encoder.encode(self._top)


def normalize(raw: bytes, new_id: Callable[[], str]) -> Draft:
    """Put a request into the one form that agents get. Raises `InvalidJson` and `PartsRequired`."""
    try:
        value = msgspec.json.decode(raw)
        if not isinstance(value, dict):
            raise InvalidJson
        top: Level = _level.decode(raw)
        if "jsonrpc" not in value:
            top, value = _wrapped(top, value, new_id())
        params = _levels(top.get("params"), value.get("params"))
        said = _levels(params.get("message") if params else None, message_of(value))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise InvalidJson from problem
    draft = Draft(top, params, said, value)
    plain = draft.message
    if said is not None and plain is not None:
        _normalize_message(said, plain, draft.method, value.get("id"), new_id)
    return draft


def _wrapped(top: Level, value: dict[str, Any], request_id: str) -> tuple[Level, dict[str, Any]]:
    """A bare `{method, params}` in its envelope; other keys go."""
    head = {"jsonrpc": "2.0", "id": request_id}
    kept = [key for key in ("method", "params") if key in value]
    return {**head, **{key: top[key] for key in kept}}, {**head, **{key: value[key] for key in kept}}


def _levels(raw: Any, value: Any) -> Level | None:
    return dict(_level.decode(bytes(raw))) if isinstance(value, dict) and isinstance(raw, Raw) else None


def _normalize_message(
    said: Level, plain: dict[str, Any], method: str, request_id: Any, new_id: Callable[[], str]
) -> None:
    def put(key: str, value: Any) -> None:
        said[key] = plain[key] = value

    if "parts" not in plain:
        content = plain.get("content")
        if isinstance(content, str):
            put("parts", [{"kind": "text", "text": content}])
        elif isinstance(content, list):
            put("parts", content)
        else:
            raise PartsRequired(request_id)
    said.pop("content", None)
    plain.pop("content", None)
    if not plain.get("messageId"):
        put("messageId", new_id())
    # The protocol's 1.0 names its methods in capitals; its messages have neither `kind` nor these roles.
    if method[:1].isupper():
        return
    if "role" not in plain:
        put("role", "user")
    if any(_lacks_kind(part) for part in _list(plain["parts"])):
        put("parts", [_with_kind(part) for part in plain["parts"]])


def _lacks_kind(part: Any) -> bool:
    return isinstance(part, dict) and "kind" not in part and ("type" in part or "text" in part)


def _with_kind(part: Any) -> Any:
    return {**part, "kind": part.get("type", "text")} if _lacks_kind(part) else part
