"""One verb of `WorkspaceFiles`, run in a container beside the agent's: `python3 -m` this module.

The container has the workspace's directories and nothing else of it: not the agent's processes, not its
environment. When the call ends, the container does, and with it whatever the call has started.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from contextlib import suppress
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast
from uuid import UUID

import msgspec

from molecule_ai.kernel.archives import TarLimits
from molecule_ai.kernel.errors import ApiError
from molecule_ai.provisioners.base import Root
from molecule_ai.provisioners.local import scan
from molecule_ai.provisioners.local.execute import execute
from molecule_ai.provisioners.local.files import LocalFiles
from molecule_ai.provisioners.local.layout import Layout

from .tiers import HOME
from .wire import Request, Response, pack, read_request

SPOOL_BYTES = 4 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
OWN_VARIABLES = ("PATH", "LANG", "HOME", "HOSTNAME", "WORKSPACE_DIR", "WORKSPACE_CONFIG_PATH", "PLUGINS_DIR")


class Here(Layout, frozen=True):
    """The directories as containers have them."""

    def root(self, root: Root) -> Path:
        return Path(HOME) if root in (Root.HOME, Root.AGENT_HOME) else super().root(root)


def main() -> None:
    source, target = sys.stdin.buffer, sys.stdout.buffer
    request = read_request(source)
    signal.alarm(int(request.seconds) + 10)
    payload = _receive(source, request.size)
    response, content = asyncio.run(_answer(request, payload))
    target.write(pack(response))
    shutil.copyfileobj(content, target, CHUNK_BYTES)
    target.flush()


def _receive(source: BinaryIO, size: int) -> BinaryIO:
    spool = SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115 handed on
    while size > 0 and (chunk := source.read(min(size, CHUNK_BYTES))):
        spool.write(chunk)
        size -= len(chunk)
    spool.seek(0)
    return cast(BinaryIO, spool)


async def _answer(request: Request, payload: BinaryIO) -> tuple[Response, BinaryIO]:
    layout = Here(base=Path("/"))
    files = LocalFiles(layout, UUID(int=0), scan.Scanner(""), {})
    try:
        if request.verb == "exec":
            return await _execute(layout, request, payload)
        result = await _act(files, request, payload)
    except ApiError as error:
        return Response(error=error.code, text=error.text), BytesIO()
    if hasattr(result, "read"):
        size = result.seek(0, os.SEEK_END)
        result.seek(0)
        return Response(size=size), result
    if isinstance(result, bytes):
        return Response(size=len(result)), BytesIO(result)
    return Response(result=msgspec.to_builtins(result)), BytesIO()


async def _act(files: LocalFiles, request: Request, payload: BinaryIO) -> Any:
    root, path, arguments = Root(request.root), request.path, request.arguments
    match request.verb:
        case "stat":
            return await files.stat(root, path)
        case "read":
            return await files.read(root, path, max_bytes=arguments["max_bytes"])
        case "write":
            return await files.write(root, path, payload.read(), mode=arguments["mode"])
        case "write_many":
            contents = {name: payload.read(size) for name, size in arguments["sizes"].items()}
            return await files.write_many(root, contents, prune=arguments["prune"])
        case "list":
            return await files.list(root, path, depth=arguments["depth"])
        case "delete":
            return await files.delete(root, path)
        case "tar_in":
            return await files.tar_in(root, path, payload, msgspec.convert(arguments["limits"], TarLimits))
        case "tar_out":
            return await files.tar_out(root, path, max_bytes=arguments["max_bytes"])
        case other:
            raise ApiError(f"unknown verb: {other}")


async def _execute(layout: Here, request: Request, payload: BinaryIO) -> tuple[Response, BinaryIO]:
    arguments = request.arguments

    async def sweep() -> None:
        # Every process of this container but the first one and this one: all are the command's.
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)

    ended = await execute(
        arguments["argv"],
        directory=layout.root(Root(request.root)),
        environment={name: os.environ[name] for name in OWN_VARIABLES if name in os.environ},
        stdin=payload.read() if arguments["has_stdin"] else None,
        timeout=timedelta(seconds=arguments["timeout"]),
        max_output_bytes=arguments["max_output_bytes"],
        sweep=sweep,
    )
    result = {
        "exit_code": ended.exit_code,
        "stdout": len(ended.stdout),
        "truncated": ended.truncated,
        "timed_out": ended.timed_out,
    }
    content = ended.stdout + ended.stderr
    return Response(size=len(content), result=result), BytesIO(content)


if __name__ == "__main__":
    main()
