import asyncio
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ADMIN_TOKEN
from tests.support import serve

ROOT = Path(__file__).parents[2]


def test_the_document_declares_no_crash() -> None:
    """A 501, 502, 503 or 504 is the contract's word for who is away; a 500 is a bug, declared nowhere."""
    document = yaml.load((ROOT / "docs/openapi/management.yaml").read_text(), Loader=yaml.CSafeLoader)
    crashing = [
        f"{method} {path}"
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if {"500", "default"} & operation["responses"].keys()
    ]
    # Contract 02 §17: a refresh that broke off tells how far it came; 05 §4: secrets are whole or a 500.
    assert set(crashing) == {
        "post /admin/workspace-images/refresh",
        "get /workspaces/{workspace_id}/secrets/values",
    }


@pytest.mark.processes
@pytest.mark.slow
async def test_no_request_the_document_allows_ends_in_a_crash_or_an_undeclared_status(dsn: str) -> None:
    async with serve(dsn, workers=2) as served:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "run", "docs/openapi/management.yaml"),
            *("--url", served.url, "--header", f"Authorization: Bearer {ADMIN_TOKEN}"),
            *("--checks", "status_code_conformance"),
            *("--max-examples", "10", "--seed", "1", "--workers", "1", "--no-color"),
            *("--phases", "examples,coverage,fuzzing", "--generation-database", "none"),
            # A socket and a stream are no request and answer.
            *("--exclude-path-regex", "^/ws$|/events/stream$"),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output = (await asyncio.wait_for(process.communicate(), 400))[0].decode()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, output[-12000:] + served_errors(served.log())


def served_errors(log: str) -> str:
    """The crashes that the server logged."""
    return "\n".join(line for line in log.splitlines() if "crashed" in line)[-8000:]
