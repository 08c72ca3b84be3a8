"""The body of the proxy's route in the OpenAPI document: the handler reads bytes, people read this."""

from __future__ import annotations

from dataclasses import dataclass

from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema

_EXAMPLE = {
    "method": "message/send",
    "params": {
        "message": {"role": "user", "parts": [{"kind": "text", "text": "Status of the invoice run?"}]}
    },
}


@dataclass
class MessageOperation(Operation):
    """An operation that takes an A2A request."""

    def __post_init__(self) -> None:
        schema = Schema(
            type=OpenAPIType.OBJECT,
            description="A JSON-RPC 2.0 request of A2A, or the bare `{method, params}`; at most 1 MiB.",
            properties={
                "jsonrpc": Schema(type=OpenAPIType.STRING),
                "id": Schema(),
                "method": Schema(type=OpenAPIType.STRING),
                "params": Schema(type=OpenAPIType.OBJECT),
            },
        )
        media = OpenAPIMediaType(schema=schema, example=_EXAMPLE)
        self.request_body = RequestBody(content={"application/json": media}, required=True)
