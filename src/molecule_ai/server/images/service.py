"""Newer images: fetched, and agents brought onto them without cutting off their work."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from uuid import UUID

from molecule_ai.kernel import log
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.provisioners.errors import ProvisionError
from molecule_ai.server.events.service import Events

from . import store
from .errors import NoDocker, RefreshFailed, RefreshRunning, UnknownRuntime
from .schemas import Refreshed, Resident

PULL_BUDGET_SECONDS = 300.0  # contract 02 §17, for all pulls together
LOCK_FILE = "images.lock"
NAME_CHARS = 12  # of the workspace's id in the name of its container, contract 02 §9.4


class ImageStore(Protocol):
    """The images of a back end that runs containers."""

    @property
    def references(self) -> Mapping[str, str]:
        """Image by runtime."""
        ...

    async def pull(self, reference: str) -> str: ...


class Restarts(Protocol):
    """Whoever has agents start anew."""

    async def request_restart(
        self, tx: Connection, workspace_ids: Sequence[UUID], *, reason: str
    ) -> None: ...


class Images:
    """Refreshes the images of this node; `store` is None where agents are no containers."""

    def __init__(
        self,
        db: Database,
        events: Events,
        restarts: Restarts,
        images: ImageStore | None,
        *,
        node: str,
        home: Path,
        budget_seconds: float = PULL_BUDGET_SECONDS,
    ) -> None:
        self._db = db
        self._events = events
        self._restarts = restarts
        self._images = images
        self._node = node
        self._lock = home / LOCK_FILE
        self._budget_seconds = budget_seconds
        self._log = log.get()

    async def refresh(self, runtime: str | None, *, recreate: bool, actor: str) -> Refreshed:
        """Raises `NoDocker`, `UnknownRuntime`, `RefreshRunning` and `RefreshFailed`."""
        if self._images is None:
            raise NoDocker
        references = self._images.references
        if runtime is not None and runtime not in references:
            raise UnknownRuntime(runtime, sorted(references))
        wanted = {runtime: references[runtime]} if runtime is not None else dict(references)
        with self._alone():
            digests, error = await self._pull(self._images, sorted(set(wanted.values())))
        pulled = sorted(name for name, reference in wanted.items() if reference in digests)
        failed = sorted(wanted.keys() - set(pulled))
        newest = {name: digests[wanted[name]] for name in pulled}
        recreated, deferred = await self._recreate(newest, actor) if recreate else ([], [])
        result = Refreshed(pulled, failed, recreated, deferred)
        if error is not None:
            raise RefreshFailed(partial_result=result) from error
        return result

    async def _pull(
        self, images: ImageStore, references: Sequence[str]
    ) -> tuple[dict[str, str], ProvisionError | None]:
        """The digests of what could be had in time, and the error after which no other pull makes sense."""
        digests: dict[str, str] = {}
        try:
            async with asyncio.timeout(self._budget_seconds):
                for reference in references:
                    try:
                        digests[reference] = await images.pull(reference)
                    except ProvisionError as error:
                        self._log.warning(
                            "image_pull_failed", image=reference, error=str(error.__cause__ or error)
                        )
                        if error.code != "IMAGE_PULL":
                            return digests, error
        except TimeoutError:
            self._log.warning("image_refresh_cut", pulled=len(digests), wanted=len(references))
        return digests, None

    async def _recreate(self, newest: Mapping[str, str], actor: str) -> tuple[list[str], list[UUID]]:
        """Have the agents on older images start anew: the idle ones now, the others after their tasks."""
        async with self._db.transaction() as tx:
            found = await store.residents(tx, self._node, list(newest))
            stale = [resident for resident in found if _is_stale(resident, newest)]
            await self._restarts.request_restart(
                tx, [resident.id for resident in stale], reason="image refresh"
            )
            idle = [resident.id for resident in stale if not resident.active_tasks]
            busy = [resident.id for resident in stale if resident.active_tasks]
            facts = {"runtimes": sorted(newest), "restarted": len(idle), "deferred": len(busy)}
            await self._events.append(tx, "image.refresh", None, facts, actor=actor)
        return [f"ws-{str(workspace_id)[:NAME_CHARS]}" for workspace_id in idle], busy

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One refresh at a time on this node; the kernel lets go of the lock of a process that dies."""
        self._lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RefreshRunning from None
            yield
        finally:
            os.close(fd)


def _is_stale(resident: Resident, newest: Mapping[str, str]) -> bool:
    return resident.handle.get("image_digest") != newest[resident.runtime]


class ImageRefresher:
    """The engine of `IMAGE_AUTO_REFRESH`: a refresh of everything, now and then."""

    name = "image-auto-refresh"
    interval_seconds = 300.0  # contract 01 §18

    def __init__(self, images: Images) -> None:
        self._images = images

    async def tick(self) -> dict[str, int]:
        try:
            done = await self._images.refresh(None, recreate=True, actor="image-auto-refresh")
        except (RefreshRunning, RefreshFailed):
            return {"pulled": 0, "failed": 0, "recreated": 0}
        return {
            "pulled": len(done.pulled),
            "failed": len(done.failed),
            "recreated": len(done.recreated) + len(done.deferred),
        }
