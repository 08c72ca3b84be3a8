"""One HTTP request with the standard library: a command line has no time to load more."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import HTTPErrorProcessor, Request, build_opener


class Unreachable(Exception):
    """Nobody answers at this address."""

    def __init__(self, url: str, reason: object) -> None:
        super().__init__(f"cannot reach {url} ({reason}). Is it running? Start one with: molecule up")


@dataclass(frozen=True)
class Answer:
    """What came back, whatever its status."""

    url: str
    status_code: int
    headers: Mapping[str, str]
    content: bytes
    seconds: float

    @property
    def text(self) -> str:
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        return json.loads(self.content)


class _AsItIs(HTTPErrorProcessor):
    """Neither raises for a status nor follows a redirect: a bearer goes to nobody else."""

    def http_response(self, request: Request, response: Any) -> Any:
        return response

    https_response = http_response


def request(
    method: str,
    url: str,
    *,
    body: Any = None,
    params: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float,
) -> Answer:
    """Send JSON and read the whole answer. Raises `Unreachable`."""
    full = f"{url}?{urlencode(params)}" if params else url
    asked = Request(full, method=method, headers=dict(headers or {}))  # noqa: S310 - the user's own address
    if body is not None:
        asked.data = json.dumps(body).encode()
        asked.add_header("Content-Type", "application/json")
    began = time.monotonic()
    try:
        with build_opener(_AsItIs).open(asked, timeout=timeout) as response:
            content = response.read()
            seconds = time.monotonic() - began
            named = {name.lower(): value for name, value in response.headers.items()}
            return Answer(full, response.status, named, content, seconds)
    except URLError as problem:
        raise Unreachable(full, problem.reason) from problem
    except (OSError, HTTPException, ValueError) as problem:
        raise Unreachable(full, problem or type(problem).__name__) from problem
