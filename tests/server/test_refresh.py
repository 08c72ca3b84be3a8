"""What a control plane may set in its tenant before the start (contract 01 §21, §24 row 28)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from molecule_ai.server.refresh import refreshed
from molecule_ai.server.settings import Settings
from tests.support import free_port


@asynccontextmanager
async def plane(status: int, body: bytes, asked: list[str]) -> AsyncIterator[str]:
    """A server that answers every request alike, and what it was asked."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    port = free_port()
    async with await asyncio.start_server(answer, "127.0.0.1", port):
        yield f"http://127.0.0.1:{port}"


async def ask(status: int, answer: Any, **settings: str) -> tuple[dict[str, str], list[str]]:
    asked: list[str] = []
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    async with plane(status, body, asked) as url:
        tenant = {"molecule_org_id": "org-1", "admin_token": "root-of-the-tenant"} | settings
        return await refreshed(Settings(molecule_cp_url=url, **tenant)), asked  # type: ignore[arg-type]


async def test_only_what_is_on_the_list_is_set() -> None:
    told, asked = await ask(
        200,
        {
            "MOLECULE_ORG_NAME": "Acme",
            "CP_UPSTREAM_URL": "https://cp.example",
            "ADMIN_TOKEN": "stolen",
            "DATABASE_URL": "postgres://evil",
            "PATH": "/evil",
            "MOLECULE_ORG_SLUG": "x" * 5000,
            "MOLECULE_PLAN": 5,
        },
    )
    assert told == {"MOLECULE_ORG_NAME": "Acme", "CP_UPSTREAM_URL": "https://cp.example"}
    (request,) = asked
    assert request.startswith("GET /cp/tenants/config HTTP/1.1\r\n")
    assert "Authorization: Bearer root-of-the-tenant\r\n" in request
    assert "X-Molecule-Org-Id: org-1\r\n" in request


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (401, {}),
        (200, b"no json"),
        (200, []),
        (200, b'{"MOLECULE_ORG_NAME":"' + b"x" * 70_000 + b'"}'),
        (302, {}),
    ],
)
async def test_an_answer_of_no_use_sets_nothing(status: int, answer: Any) -> None:
    assert (await ask(status, answer))[0] == {}


@pytest.mark.parametrize("absent", ["molecule_org_id", "admin_token"])
async def test_who_is_no_hosted_tenant_asks_nobody(absent: str) -> None:
    assert await ask(200, {"MOLECULE_ORG_NAME": "Acme"}, **{absent: ""}) == ({}, [])


async def test_an_absent_control_plane_does_not_stop_the_start() -> None:
    settings = Settings(
        molecule_cp_url=f"http://127.0.0.1:{free_port()}", molecule_org_id="o", admin_token="t"
    )
    assert await refreshed(settings) == {}
