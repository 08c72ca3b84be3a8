"""How a handler becomes a route, how a body becomes a type, and how trouble becomes a body.

A route names its tier, its errors and its texts in one decorator; the summary in the OpenAPI
document is the docstring's first line and the operation id is the function's name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, ClassVar

import asyncpg
import msgspec
from litestar import MediaType, Request, Response
from litestar import delete as _delete
from litestar import get as _get
from litestar import patch as _patch
from litestar import post as _post
from litestar import put as _put
from litestar.di import NamedDependency as Here
from litestar.exceptions import HTTPException, MethodNotAllowedException, SerializationException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.types import Empty
from msgspec import Meta, Struct

from . import log
from .errors import ApiError, InvalidRequest, TooLarge

Number = int | float

__all__ = [
    "ApiRequest",
    "ErrorBody",
    "FromPath",
    "FromQuery",
    "Here",
    "JSONBody",
    "Number",
    "delete",
    "get",
    "number",
    "patch",
    "post",
    "put",
    "route_pattern",
]


class ErrorBody(Struct, omit_defaults=True):
    """Every failure of the API."""

    error: Annotated[str, Meta(description="What went wrong, for people.", examples=["workspace not found"])]
    code: Annotated[str, Meta(description="The same for machines.", examples=["not_found"])] = ""
    request_id: Annotated[str, Meta(description="The `X-Request-Id` of this answer.")] = ""


def number(value: float) -> Number:
    """A float as JSON clients of the contract expect it: whole numbers without `.0`."""
    return int(value) if float(value).is_integer() else value


_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")  # PostgreSQL refuses NUL in text


class ApiRequest(Request[Any, Any, Any]):
    """Reads JSON whatever the content type says, and only the first value of the body."""

    async def json(self) -> Any:
        if self._json is Empty:
            self._json = decode(await self.body())
        return self._json


def decode(body: bytes) -> Any:
    """The first JSON value of `body`, NUL characters removed. Raises `SerializationException`."""
    if b"\\u0000" in body:
        body = _NUL.sub(rb"\1", body)
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        try:
            value, _ = json.JSONDecoder().raw_decode(body.decode(errors="replace").lstrip())
        except ValueError:
            raise SerializationException(str(problem)) from problem
        return _whole(value)


def _whole(value: Any) -> Any:
    """`value` with U+FFFD for halves of characters, which neither UTF-8 nor PostgreSQL can hold."""
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def route_pattern(template: str) -> str:
    """A route as dashboards and the audit trail name it: `/workspaces/:id/tokens/:tokenId`."""
    parts = []
    for part in template.split("/"):
        if part.startswith("{"):
            name = part.strip("{}").partition(":")[0]
            first, *rest = ("id" if name == "workspace_id" else name).split("_")
            part = ":" + first + "".join(word.title() for word in rest)
        parts.append(part)
    return "/".join(parts)


def _route(
    make: Callable[..., Callable[[Any], Any]], default_status: int
) -> Callable[..., Callable[[Callable[..., Any]], Any]]:
    def route(
        path: str | list[str],
        tier: Any,
        *,
        errors: Sequence[type[ApiError]] = (),
        missing: Mapping[str, type[ApiError]] | None = None,
        invalid_body: str = "invalid request body",
        status: int = default_status,
        tags: Sequence[str] = (),
        also: Mapping[int, type | None] | None = None,
        reads: Mapping[str, Schema] | None = None,
        **options: Any,
    ) -> Callable[[Callable[..., Any]], Any]:
        """`missing` maps a path parameter to what a malformed id of it answers.

        `also` names further successes by status. `reads` describes, by media type, a body that the
        handler takes from the request itself.
        """
        if reads is not None:
            options["operation_class"] = _reading(reads)

        def decorate(function: Callable[..., Any]) -> Any:
            summary = (function.__doc__ or "").strip().partition("\n")[0].rstrip(".")
            return make(
                path,
                status_code=status,
                operation_id=_operation_id(function.__name__, path),
                summary=summary,
                tags=list(tags) or None,
                responses=_responses(
                    errors,
                    # The framework would declare a 400 of its own shape for whatever it converts.
                    converts=reads is not None or _converts(function, path),
                    tier=tier,
                )
                | _successes(also or {}),
                tier=tier,
                missing=dict(missing or {}),
                invalid_body=invalid_body,
                refusals=tuple(errors),
                **options,
            )(function)

        return decorate

    return route


def _converts(function: Callable[..., Any], path: str | list[str]) -> bool:
    """Whether something of the request becomes an argument: the body, the query or a part of the path."""
    arguments = function.__annotations__
    return (
        "data" in arguments
        or "{" in str(path)
        or any("FromQuery" in str(kind) for kind in arguments.values())
    )


def _operation_id(name: str, path: str | list[str]) -> str | Callable[..., str]:
    """The function's name; a further path of the same handler adds its first word, for ids are unique."""
    if isinstance(path, str):
        return name
    main = path[0].strip("/").partition("/")[0]

    def create(_handler: Any, _method: Any, components: list[Any]) -> str:
        first = str(components[0]) if components else ""
        return name if first == main else f"{name}_{first}"

    return create


def _successes(also: Mapping[int, type | None]) -> dict[int, ResponseSpec]:
    return {
        status: ResponseSpec(
            data_container=kind, description=HTTPStatus(status).phrase, generate_examples=False
        )
        for status, kind in also.items()
    }


def _reading(content: Mapping[str, Schema]) -> type[Operation]:
    """An operation whose body is described by hand."""
    body = RequestBody(
        content={media_type: OpenAPIMediaType(schema=schema) for media_type, schema in content.items()},
        required=True,
    )

    @dataclass
    class Reading(Operation):
        def __post_init__(self) -> None:
            self.request_body = body

    return Reading


def _responses(errors: Sequence[type[ApiError]], *, converts: bool, tier: Any) -> dict[int, ResponseSpec]:
    by_status: dict[int, list[str]] = {}
    for error in (*errors, *tier.raises, *((InvalidRequest,) if converts else ())):
        texts = by_status.setdefault(error.status, [])
        text = (error.__doc__ or "").strip()
        if text not in texts:
            texts.append(text)
    return {
        status: ResponseSpec(data_container=ErrorBody, description=" · ".join(texts), generate_examples=False)
        for status, texts in sorted(by_status.items())
    }


get = _route(_get, 200)
post = _route(_post, 200)
put = _route(_put, 200)
patch = _route(_patch, 200)
delete = _route(_delete, 200)


class Failures:
    """The handlers of every exception: the one place where trouble becomes a body."""

    log: ClassVar = log.get()

    @staticmethod
    def answer(request: Request[Any, Any, Any], error: ApiError) -> Response[dict[str, Any]]:
        """The body of a known failure, with the request's id."""
        request.scope["error_code"] = error.code  # type: ignore[typeddict-unknown-key]  # the edge counts it
        body = error.body()
        request_id = request.scope.get("request_id", "")
        if request_id:
            body["request_id"] = request_id
        headers = dict(error.headers)
        if "retry_after" in error.extra:
            headers.setdefault("Retry-After", str(error.extra["retry_after"]))
        return Response(body, status_code=error.status, headers=headers, media_type=MediaType.JSON)

    @classmethod
    def known(cls, request: Request[Any, Any, Any], error: ApiError) -> Response[dict[str, Any]]:
        if error.status >= 500:
            cls.log.warning(
                "request_failed", code=error.code, error=error.text, cause=str(error.__cause__ or "")
            )
        return cls.answer(request, error)

    @classmethod
    def framework(cls, request: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, Any]]:
        """Litestar's own refusals in the words of the contract."""
        if isinstance(error, MethodNotAllowedException):
            return cls.answer(request, _MethodNotAllowed(headers=error.headers or {}))
        if error.status_code == 400 or _blames_body(error):
            handler = request.scope.get("route_handler")
            text = handler.opt.get("invalid_body", "") if handler is not None else ""
            return cls.answer(request, InvalidRequest(text or None))
        if error.status_code == 404:
            return cls.answer(request, _NoSuchRoute())
        if error.status_code == 413:
            return cls.answer(request, _too_large(request))
        known = _Framework(error.detail or "request failed")
        body = cls.answer(request, known)
        body.status_code = error.status_code
        return body

    @classmethod
    def unreadable(cls, request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
        """Text that PostgreSQL cannot hold, such as NUL, is the client's mistake wherever it stood."""
        cls.log.info("text_refused", path=request.url.path, error=str(error))
        return cls.answer(request, InvalidRequest())

    @classmethod
    def bug(cls, request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
        cls.log.error("request_crashed", path=request.url.path, method=request.method, exc_info=error)
        return cls.answer(request, ApiError())


def _too_large(request: Request[Any, Any, Any]) -> TooLarge:
    """A body over the limit of its route, or of the server (contract 01 §15)."""
    handler = request.scope.get("route_handler")
    limit = getattr(handler, "resolve_request_max_body_size", lambda: None)()
    return TooLarge(limit_bytes=limit) if limit else TooLarge()


class _MethodNotAllowed(ApiError):
    """method not allowed"""

    status = 405
    code = "method_not_allowed"


class _NoSuchRoute(ApiError):
    """not found"""

    status = 404
    code = "no_such_route"


def _blames_body(error: HTTPException) -> bool:
    """Whether a failed conversion is the body's fault.

    The framework takes a body field for one of its own dependencies when both have the same name.
    """
    cause = error.__cause__
    return isinstance(cause, msgspec.ValidationError) and "`$.data" in str(cause)


class _Framework(ApiError):
    """request failed"""

    status = 400
    code = "invalid_request"


EXCEPTION_HANDLERS: dict[int | type[Exception], Any] = {
    ApiError: Failures.known,
    HTTPException: Failures.framework,
    asyncpg.CharacterNotInRepertoireError: Failures.unreadable,
    asyncpg.UntranslatableCharacterError: Failures.unreadable,
    UnicodeEncodeError: Failures.unreadable,
    Exception: Failures.bug,
}
