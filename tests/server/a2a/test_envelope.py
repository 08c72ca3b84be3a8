import json
from typing import Any
from uuid import uuid4

import pytest

from molecule_ai.server.a2a import envelope
from molecule_ai.server.a2a.errors import InvalidJson, PartsRequired
from molecule_ai.server.mailbox.chain import Chain


def normalize(body: Any) -> dict[str, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    draft = envelope.normalize(raw, lambda: "new-id")
    sent: dict[str, Any] = json.loads(draft.encode())
    assert sent == draft.value
    return sent


def test_the_example_of_the_contract() -> None:
    sent = normalize(
        {
            "method": "message/send",
            "params": {
                "message": {"role": "user", "parts": [{"type": "text", "text": "Status?"}]},
                "metadata": {"history": []},
            },
        }
    )
    assert sent == {
        "jsonrpc": "2.0",
        "id": "new-id",
        "method": "message/send",
        "params": {
            "message": {
                "role": "user",
                "messageId": "new-id",
                "parts": [{"type": "text", "kind": "text", "text": "Status?"}],
            },
            "metadata": {"history": []},
        },
    }


def test_an_envelope_keeps_its_id_and_its_bytes() -> None:
    raw = (
        b'{"jsonrpc":"2.0","id":7,"method":"message/send","extra":1.50,'
        b'"params":{"message":{"messageId":"m","role":"agent","parts":[{"kind":"data","data":{"n":1.10}}]},'
        b'"configuration":{"big":123456789012345678901234567890}}}'
    )
    assert envelope.normalize(raw, lambda: "x").encode() == raw


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("hello", [{"kind": "text", "text": "hello"}]),
        ([{"text": "a"}], [{"text": "a", "kind": "text"}]),
        ([], []),
    ],
)
def test_content_becomes_parts(content: Any, parts: Any) -> None:
    sent = normalize(
        {"jsonrpc": "2.0", "id": "r", "method": "message/send", "params": {"message": {"content": content}}}
    )
    assert sent["params"]["message"] == {"parts": parts, "messageId": "new-id", "role": "user"}


@pytest.mark.parametrize("said", [{}, {"content": 7}, {"content": None}, {"text": "x"}])
def test_a_message_without_parts_is_a_json_rpc_error(said: Any) -> None:
    with pytest.raises(PartsRequired) as refused:
        normalize({"jsonrpc": "2.0", "id": "r", "method": "message/send", "params": {"message": said}})
    assert refused.value.body() == {
        "jsonrpc": "2.0",
        "id": "r",
        "error": {
            "code": -32602,
            "message": "invalid params: message.parts is required",
            "data": {"field": "params.message.parts"},
        },
    }


def test_methods_without_a_message_pass() -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": "t"}}
    assert normalize(body) == body


def test_messages_of_protocol_1_0_keep_their_shape() -> None:
    said = {"role": "ROLE_USER", "parts": [{"text": "x"}], "messageId": "m"}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": said}}
    assert normalize(body) == body


@pytest.mark.parametrize("raw", [b"", b"[]", b"7", b'"x"', b"null", b"{", b'{"a":"\xff"}', b"[" * 100_000])
def test_anything_but_an_object_is_invalid_json(raw: bytes) -> None:
    with pytest.raises(InvalidJson):
        envelope.normalize(raw, lambda: "x")


def test_the_chain_is_added_beside_other_metadata() -> None:
    raw = (
        b'{"jsonrpc":"2.0","id":1,"params":{"message":'
        b'{"parts":[],"messageId":"m","role":"user","metadata":{"k":1.0}}}}'
    )
    draft = envelope.normalize(raw, lambda: "x")
    chain = Chain(chain_id=uuid4())
    draft.mark(chain)
    metadata = json.loads(draft.encode())["params"]["message"]["metadata"]
    assert metadata == {"k": 1.0, "molecule": chain.metadata()}
    assert draft.claimed_chain == chain


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"parts": [{"kind": "text", "text": "a"}, {"type": "text", "text": "b"}, {"kind": "file"}]}, "a\nb"),
        ({"artifacts": [{"parts": [{"text": "a"}]}, {"parts": [{"text": "b"}]}]}, "a\nb"),
        ({"message": {"parts": [{"text": "a"}]}}, "a"),
        ({"status": {"message": {"parts": [{"text": "a"}]}}}, "a"),
        ({"task": {"artifacts": [{"parts": [{"text": "a"}]}]}}, "a"),
        ("plain", "plain"),
        ({"odd": 1}, '{"result":{"odd":1}}'),
    ],
)
def test_reply_text_finds_what_was_said(result: Any, text: str) -> None:
    assert envelope.reply_text({"result": result}) == text
