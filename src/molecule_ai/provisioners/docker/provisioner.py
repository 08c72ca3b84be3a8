"""Agents as containers. The engine remembers everything; a server keeps nothing about them in memory."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import structlog

from molecule_ai.kernel import failpoints
from molecule_ai.provisioners.base import Handle, Launch, Orphan, Record, Root
from molecule_ai.provisioners.errors import Elsewhere, FileMissing, ProvisionError, StartFailed
from molecule_ai.provisioners.local.layout import SESSION_DIRECTORY, SNAPSHOT_FILE, node_id

from . import names
from .calls import Calls
from .engine import Engine, EngineRefused, NameTaken, PortTaken
from .files import DockerFiles
from .images import Images
from .options import DockerOptions
from .seed import seed
from .spec import Birth, agent
from .tiers import Isolation, isolation_for

log = structlog.get_logger(__name__)

LEFTOVER_GRACE = 2  # seconds for an agent that a new start replaces
YOUNG_SECONDS = 3.0  # an agent this young may be in no snapshot of the database yet
ON_ITS_WAY_SECONDS = 30.0  # between its creation and its start an agent counts as running
MAX_REVIVALS = 3  # by the engine; then the server takes over, which waits longer each time and gives up
ATTEMPTS = 5  # with another port each
MAX_LOG_BYTES = 1024 * 1024
SHORTEST_LINE = 16  # bytes, to guess how many lines a tail has
ALIVE = frozenset({"running", "restarting", "paused"})
HERE = "127.0.0.1"


class DockerProvisioner:
    """Starts, judges and ends agents in the engine of this node.

    `home` holds the name of the installation: containers of another one in the same engine are never
    touched, and servers that share an engine share that file.
    """

    name = "docker"

    def __init__(self, home: Path, platform_url: str, options: DockerOptions) -> None:
        self.options = options
        self.node = node_id(home)
        self.engine = Engine(options.host)
        self.images = Images(self.engine, options)
        self._platform_url = platform_url
        self._is_member: bool | None = None
        self._labels = {names.MANAGED: "true", names.INSTALLATION: self.node}
        self._calls = Calls(self.engine, self.images, options, self._labels)

    async def start(self, launch: Launch, record: Record | None = None) -> Handle:
        """Bring an agent to life, in the place of any other one of its workspace."""
        if (living := await self._living(launch)) is not None:
            if record is not None:
                await record(living)
            return living
        await self._clear(launch.workspace_id)
        try:
            return await self._start(launch, record)
        except EngineRefused as error:
            raise StartFailed("workspace start failed") from error.__cause__ or error

    async def stop(self, workspace_id: UUID, handle: Handle | None, grace: float = 5) -> None:
        """See `Provisioner.stop`. The container stays for its log, until the next start or the removal."""
        self._require_here(handle)
        found = await self._of(workspace_id)
        await asyncio.gather(
            *(self.engine.stop(entry["Id"], math.ceil(grace)) for entry in found if _lives(entry["State"]))
        )

    async def is_running(self, handle: Handle) -> bool:
        """Whether the agent lives, or is about to; one that the engine keeps reviving does not."""
        self._require_here(handle)
        found = await self.engine.inspect(handle.container_id or "")
        if found is None or found["Config"]["Labels"].get(names.INSTANCE) != str(handle.instance_id):
            return False
        state = found["State"]["Status"]
        if not _lives(state):
            return state in ("created", "initialized", "configured") and _age(found) < ON_ITS_WAY_SECONDS
        return int(found.get("RestartCount") or 0) < MAX_REVIVALS

    async def logs(self, workspace_id: UUID, tail_bytes: int = 64 * 1024) -> str:
        wanted = min(tail_bytes, MAX_LOG_BYTES)
        for entry in await self._of(workspace_id):
            text = await self.engine.log(entry["Id"], max(100, wanted // SHORTEST_LINE))
            return text.encode()[-wanted:].decode(errors="replace")
        return ""

    async def remove(self, workspace_id: UUID, handle: Handle | None, purge: bool) -> None:
        await self.stop(workspace_id, handle)
        kinds = [names.AGENT, names.CALL] if purge else [names.AGENT]
        for kind in kinds:
            for entry in await self._of(workspace_id, kind):
                await self.engine.delete(entry["Id"])
        if purge:
            for volume in names.volumes(workspace_id):
                await self.engine.delete_volume(volume)

    async def find_orphans(self, expected: Mapping[UUID, UUID]) -> list[Orphan]:
        """See `Provisioner.find_orphans`. Calls that nobody can wait for any more are among them."""
        now = time.time()
        found = []
        for entry in await self.engine.containers(self._labels):
            labels = entry["Labels"]
            orphan = self._orphan(entry)
            if orphan is None:
                continue
            if labels.get(names.KIND) == names.CALL:
                is_orphan = float(labels.get(names.DEADLINE) or 0) < now
            else:
                is_unexpected = expected.get(orphan.workspace_id) != orphan.instance_id
                is_orphan = (
                    is_unexpected and _ended_by_nobody(entry) and now - entry["Created"] > YOUNG_SECONDS
                )
            if is_orphan:
                found.append(orphan)
        return found

    async def kill_orphan(self, orphan: Orphan) -> None:
        if orphan.node != self.node:
            raise Elsewhere(orphan.node)
        found = await self.engine.inspect(orphan.container_id or "")
        if found is not None and found["Config"]["Labels"].get(names.INSTANCE) == str(orphan.instance_id):
            await self.engine.delete(found["Id"])

    def files(self, workspace_id: UUID) -> DockerFiles:
        return DockerFiles(self.engine, self._calls, workspace_id)

    async def deaths(self) -> AsyncIterator[str]:
        """The name of each agent's container as it ends, while the engine can be reached."""
        async for name in self.engine.deaths({**self._labels, names.KIND: names.AGENT}):
            yield name

    async def close(self) -> None:
        await self.engine.close()

    async def _start(self, launch: Launch, record: Record | None) -> Handle:
        reference = self.images.reference(launch.runtime)
        digest = await self.images.ensure(reference)
        await self._prepare(launch)
        for _ in range(ATTEMPTS):
            birth = await self._birth(launch, reference)
            container = await self._create(birth)
            try:
                await seed(self.engine, container, launch)
                failpoints.reach("docker.created")
                handle = self._handle(birth, container, digest)
                if record is not None:
                    await record(handle)
                failpoints.reach("docker.recorded")
                await self.engine.start(container)
            except PortTaken:
                log.info("port_taken", workspace_id=str(launch.workspace_id), port=birth.port)
                await self.engine.delete(container)
                continue
            except BaseException:
                with suppress(ProvisionError):
                    await asyncio.shield(self.engine.delete(container))
                raise
            failpoints.reach("docker.started")
            log.info(
                "agent_started", workspace_id=str(launch.workspace_id), container=container, url=handle.url
            )
            return handle
        raise StartFailed("the engine gave no port to the agent")

    async def _prepare(self, launch: Launch) -> None:
        """The network and the volumes; what an earlier start has made is taken as it is."""
        await self.engine.ensure_network(self.options.network, self._labels)
        labels = {**self._labels, names.WORKSPACE: str(launch.workspace_id)}
        for name in names.volumes(launch.workspace_id):
            await self.engine.ensure_volume(name, labels)
        if launch.reset_session or self.options.forget_sessions:
            files = self.files(launch.workspace_id)
            for root, path in ((Root.CONFIGS, SNAPSHOT_FILE), (Root.HOME, SESSION_DIRECTORY)):
                with suppress(FileMissing):
                    await files.delete(root, path)

    async def _birth(self, launch: Launch, image: str) -> Birth:
        options = self.options
        isolation = isolation_for(launch.tier, options.sizes, allow_privileged=options.allow_privileged)
        if not isolation.has_host and await self._shares_network():
            port = 0
            url = f"http://{names.container(launch.workspace_id)}:{names.AGENT_PORT}"
        else:
            port = _free_port(options.publish_address)
            url = f"http://{_address(options)}:{port}"
        gateway = options.host_gateway or await self.engine.host_gateway(options.network)
        labels = {**self._labels, **_labels_of(launch, url, isolation, options)}
        return Birth(
            launch=launch,
            isolation=isolation,
            image=image,
            url=url,
            port=port,
            labels=labels,
            host_gateway=gateway,
        )

    async def _shares_network(self) -> bool:
        if self._is_member is None:
            known = self.options.shares_network
            self._is_member = (
                await self.engine.is_member(socket.gethostname(), self.options.network)
                if known is None
                else known
            )
        return self._is_member

    async def _create(self, birth: Birth) -> str:
        name = names.container(birth.launch.workspace_id)
        config = agent(birth, self.options, self._platform_url)
        try:
            return await self.engine.create(name, config)
        except NameTaken:
            # Another server was killed between two steps just now, or the name is not ours at all.
            await self._take_name(name, birth.launch.workspace_id)
            return await self.engine.create(name, config)

    async def _take_name(self, name: str, workspace_id: UUID) -> None:
        found = await self.engine.inspect(name)
        if found is None:
            return
        if found["Config"]["Labels"].get(names.WORKSPACE) != str(workspace_id):
            raise StartFailed(f"the engine has another container called {name}")
        await self.engine.delete(found["Id"])

    async def _living(self, launch: Launch) -> Handle | None:
        """The agent of this very launch, started by a server that died before it could say so."""
        found = await self.engine.inspect(names.container(launch.workspace_id))
        if found is None or found["State"]["Status"] not in ALIVE:
            return None
        labels = found["Config"]["Labels"]
        if labels.get(names.INSTANCE) != str(launch.instance_id):
            return None
        return Handle(
            instance_id=launch.instance_id,
            url=labels[names.URL],
            node=self.node,
            container_id=found["Id"],
            isolation=labels[names.ISOLATION],
            image=found["Config"]["Image"],
            image_digest=str(found["Image"]).removeprefix("sha256:"),
        )

    async def _clear(self, workspace_id: UUID) -> None:
        """End and remove every agent of a workspace, wherever its creation broke off."""
        for entry in await self._of(workspace_id):
            if _lives(entry["State"]):
                await self.engine.stop(entry["Id"], LEFTOVER_GRACE)
            await self.engine.delete(entry["Id"])

    async def _of(self, workspace_id: UUID, kind: str = names.AGENT) -> list[dict[str, Any]]:
        labels = {**self._labels, names.KIND: kind, names.WORKSPACE: str(workspace_id)}
        return await self.engine.containers(labels)

    def _handle(self, birth: Birth, container: str, digest: str) -> Handle:
        return Handle(
            instance_id=birth.launch.instance_id,
            url=birth.url,
            node=self.node,
            container_id=container,
            isolation=birth.isolation.describe(),
            image=birth.image,
            image_digest=digest,
        )

    def _orphan(self, entry: Mapping[str, Any]) -> Orphan | None:
        labels = entry["Labels"]
        try:
            workspace_id, instance_id = UUID(labels[names.WORKSPACE]), UUID(labels[names.INSTANCE])
        except (KeyError, ValueError):
            return None
        return Orphan(
            workspace_id=workspace_id, instance_id=instance_id, node=self.node, container_id=entry["Id"]
        )

    def _require_here(self, handle: Handle | None) -> None:
        if handle is not None and handle.node != self.node:
            raise Elsewhere(handle.node)


def _labels_of(launch: Launch, url: str, isolation: Isolation, options: DockerOptions) -> dict[str, str]:
    labels = {
        names.KIND: names.AGENT,
        names.WORKSPACE: str(launch.workspace_id),
        names.INSTANCE: str(launch.instance_id),
        names.GENERATION: str(launch.generation),
        names.RUNTIME: launch.runtime,
        names.TIER: str(launch.tier),
        names.URL: url,
        names.ISOLATION: isolation.describe(),
    }
    return labels | ({names.ORG: options.org} if options.org else {})


def _lives(state: str) -> bool:
    return state.lower() in ALIVE


def _ended_by_nobody(entry: Mapping[str, Any]) -> bool:
    """Whether a container lives, or was created and never started: what nobody has ended in good order."""
    return entry["State"].lower() in ALIVE | {"created", "initialized", "configured"}


def _age(found: Mapping[str, Any]) -> float:
    created = str(found["Created"]).partition(".")[0].removesuffix("Z")
    return (datetime.now(UTC) - datetime.fromisoformat(f"{created}+00:00")).total_seconds()


def _address(options: DockerOptions) -> str:
    """Where published ports are dialled: on this machine, or on that of a remote engine."""
    is_remote = options.host.startswith(("tcp://", "http://", "https://"))
    if is_remote and options.publish_address in ("0.0.0.0", ""):
        return urlsplit(options.host).hostname or HERE
    return HERE if options.publish_address in ("0.0.0.0", "") else options.publish_address


def _free_port(address: str) -> int:
    """A port that is free now. The engine refuses one that is taken meanwhile, and the next one is tried.

    Chosen here and not by the engine, so that the URL is known before the agent lives and survives a
    restart of the engine.
    """
    with socket.socket() as probe:
        try:
            probe.bind((address or "0.0.0.0", 0))
        except OSError:
            probe.bind((HERE, 0))  # the address belongs to the engine's machine
        return int(probe.getsockname()[1])
