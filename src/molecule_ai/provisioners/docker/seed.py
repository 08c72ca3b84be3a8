"""The files that a container finds when it starts: those of its launch, and its credentials."""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import PurePosixPath

from molecule_ai.kernel.paths import relative
from molecule_ai.provisioners.base import Launch
from molecule_ai.provisioners.errors import NoConfigSource, StartFailed
from molecule_ai.provisioners.local.layout import (
    CONFIG_FILE,
    CREDENTIALS,
    INBOUND_SECRET_FILE,
    TOKEN_FILE,
)

from .engine import Engine
from .spec import CONFIGS
from .tiers import USER

TEXT_SUFFIXES = (".md", ".py", ".sh")  # in these, carriage returns go (contract 02 §9.4)


async def seed(engine: Engine, container: str, launch: Launch) -> None:
    """Put the files into the configs of a container that does not run yet, in one archive.

    Without `overwrite` files that exist stay. Raises `NoConfigSource`.
    """
    files = {relative(path): content for path, content in launch.config_files.items()}
    if refused := CREDENTIALS & files.keys():
        raise StartFailed(f"{sorted(refused)[0]} is written by the platform alone")
    wanted = {
        path: content
        for path, content in files.items()
        if launch.overwrite or not await engine.has(container, f"{CONFIGS}/{path}")
    }
    if CONFIG_FILE not in files and not await engine.has(container, f"{CONFIGS}/{CONFIG_FILE}"):
        raise NoConfigSource("there is no config.yaml for this workspace")
    secrets = {TOKEN_FILE: launch.token.encode()}
    if launch.inbound_secret is not None:
        secrets[INBOUND_SECRET_FILE] = launch.inbound_secret.encode()
    await engine.put(container, CONFIGS, _archive(wanted, secrets))


def _archive(files: dict[str, bytes], secrets: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        # The directory itself, so that a volume that the engine has just made belongs to the agent.
        tar.addfile(_member(".", tarfile.DIRTYPE, 0o700))
        for folder in sorted({str(p) for path in files for p in PurePosixPath(path).parents} - {"."}):
            tar.addfile(_member(folder, tarfile.DIRTYPE, 0o755))
        for path, content in files.items():
            text = content.replace(b"\r", b"") if path.endswith(TEXT_SUFFIXES) else content
            _add(tar, path, text, 0o644)
        for path, content in secrets.items():
            _add(tar, path, content, 0o600)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, path: str, content: bytes, mode: int) -> None:
    member = _member(path, tarfile.REGTYPE, mode)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _member(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.type, member.mode, member.mtime = kind, mode, int(time.time())
    member.uid = member.gid = USER
    return member
