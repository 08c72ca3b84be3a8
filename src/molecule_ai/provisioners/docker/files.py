"""The files of a workspace that lives in volumes."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast
from uuid import UUID

import msgspec

from molecule_ai.kernel.archives import TAR_LIMITS, ArchiveRejected, ArchiveTooLarge, TarLimits
from molecule_ai.kernel.errors import ApiError
from molecule_ai.kernel.paths import PathRejected, relative
from molecule_ai.provisioners.base import ExecResult, FileEntry, Root
from molecule_ai.provisioners.errors import (
    CommandNotFound,
    FileMissing,
    FileProtected,
    FileTooLarge,
    IsDirectory,
)

from . import names
from .calls import Answer, CallFailed, Calls
from .engine import Engine
from .wire import Request

MiB = 1024 * 1024
SECONDS = 60.0
TRANSFER_SECONDS = 300.0
SPOOL_BYTES = 4 * MiB
ERRORS: Mapping[str, type[ApiError]] = {
    kind.code: kind
    for kind in (
        ArchiveRejected,
        ArchiveTooLarge,
        CommandNotFound,
        FileMissing,
        FileProtected,
        FileTooLarge,
        IsDirectory,
        PathRejected,
    )
}


class DockerFiles:
    """Every verb is a call in a container of its own, so that it holds whether or not the agent runs.

    What decides about paths, links and credentials is the code that the process back end uses, run where
    the files are.
    """

    def __init__(self, engine: Engine, calls: Calls, workspace_id: UUID) -> None:
        self._engine = engine
        self._calls = calls
        self._workspace_id = workspace_id

    async def stat(self, root: Root, path: str) -> FileEntry | None:
        if not await self._exists():
            return None
        answer = await self._call("stat", root, path)
        return msgspec.convert(answer.response.result, FileEntry | None)

    async def read(self, root: Root, path: str, *, max_bytes: int = 5 * MiB) -> bytes:
        relative(path)
        if not await self._exists():
            raise FileMissing
        return (await self._call("read", root, path, max_bytes=max_bytes)).content.read()

    async def write(self, root: Root, path: str, content: bytes, *, mode: int = 0o644) -> None:
        relative(path)
        await self._call("write", root, path, io.BytesIO(content), mode=mode)

    async def write_many(self, root: Root, files: Mapping[str, bytes], *, prune: bool = False) -> None:
        for path in files:
            relative(path)
        payload = io.BytesIO(b"".join(files.values()))
        sizes = {path: len(content) for path, content in files.items()}
        await self._call("write_many", root, "", payload, sizes=sizes, prune=prune)

    async def list(self, root: Root, path: str = "", *, depth: int = 1) -> list[FileEntry]:
        if not await self._exists():
            return []
        answer = await self._call("list", root, path, depth=depth)
        return msgspec.convert(answer.response.result, list[FileEntry])

    async def delete(self, root: Root, path: str) -> None:
        relative(path)
        if not await self._exists():
            raise FileMissing
        await self._call("delete", root, path)

    async def tar_in(self, root: Root, path: str, archive: BinaryIO, limits: TarLimits = TAR_LIMITS) -> int:
        answer = await self._call(
            "tar_in", root, path, archive, seconds=TRANSFER_SECONDS, limits=msgspec.to_builtins(limits)
        )
        return int(answer.response.result)

    async def tar_out(self, root: Root, path: str = "", *, max_bytes: int = 256 * MiB) -> BinaryIO:
        answer = await self._call("tar_out", root, path, seconds=TRANSFER_SECONDS, max_bytes=max_bytes)
        return answer.content

    async def exec(
        self,
        argv: Sequence[str],
        *,
        root: Root = Root.WORKSPACE,
        stdin: bytes | None = None,
        timeout: timedelta = timedelta(seconds=60),
        max_output_bytes: int = MiB,
    ) -> ExecResult:
        answer = await self._call(
            "exec",
            root,
            "",
            io.BytesIO(stdin or b""),
            seconds=timeout.total_seconds(),
            network=True,
            argv=list(argv),
            has_stdin=stdin is not None,
            timeout=timeout.total_seconds(),
            max_output_bytes=max_output_bytes,
        )
        told, content = answer.response.result, answer.content.read()
        return ExecResult(
            exit_code=told["exit_code"],
            stdout=content[: told["stdout"]],
            stderr=content[told["stdout"] :],
            truncated=told["truncated"],
            timed_out=told["timed_out"],
        )

    async def _exists(self) -> bool:
        """Whether the workspace ever had files; asking costs no container."""
        return await self._engine.has_volume(names.configs(self._workspace_id))

    async def _call(
        self,
        verb: str,
        root: Root,
        path: str,
        payload: BinaryIO | None = None,
        *,
        seconds: float = SECONDS,
        network: bool = False,
        **arguments: Any,
    ) -> Answer:
        source, size = _measured(payload)
        request = Request(
            verb=verb, root=root.value, path=path, size=size, seconds=seconds, arguments=arguments
        )
        answer = await self._calls.run(self._workspace_id, request, source, network=network)
        if not answer.response.error:
            return answer
        raise _error(answer.response.error, answer.response.text, arguments)


def _error(code: str, text: str, arguments: Mapping[str, Any]) -> Exception:
    known = ERRORS.get(code)
    if known is CommandNotFound:
        return CommandNotFound(arguments["argv"][0])
    return known(text) if known is not None else CallFailed(text)


def _measured(payload: BinaryIO | None) -> tuple[BinaryIO | None, int]:
    """The payload with its size, which goes ahead of it; what cannot be measured is kept aside first."""
    if payload is None:
        return None, 0
    if not payload.seekable():
        spool = cast(BinaryIO, SpooledTemporaryFile(SPOOL_BYTES))  # noqa: SIM115 handed on
        while chunk := payload.read(SPOOL_BYTES):
            spool.write(chunk)
        spool.seek(0)
        payload = spool
    size = payload.seek(0, os.SEEK_END)
    payload.seek(0)
    return payload, size
