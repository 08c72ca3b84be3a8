"""A call beside an agent: a short-lived container with the workspace's directories."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast
from uuid import UUID, uuid4

import msgspec
import structlog
from aiodocker.exceptions import DockerError
from aiodocker.stream import Stream
from msgspec import Struct

from molecule_ai.provisioners.errors import ProvisionError

from . import names, wire
from .engine import Engine, EngineAway
from .images import Images
from .options import DockerOptions
from .spec import CONFIGS, NO_PROBE, PLUGINS, WORKSPACE, call_binds
from .tiers import HOME, SIZES, STANDARD_TIER, USER, Isolation

log = structlog.get_logger(__name__)

# Isolated: nothing that the agent has put into its home is loaded.
COMMAND = ["python3", "-I", "-m", "molecule_ai.provisioners.docker.inside"]
SPOOL_BYTES = 1024 * 1024
CHUNK_BYTES = 64 * 1024
SLACK_SECONDS = 60.0  # for the engine, beyond what the call itself may take
STDOUT = 1
MAX_COMPLAINT_BYTES = 4096


class CallFailed(ProvisionError):
    """The container beside the agent did not do what it was asked."""


class Answer(Struct, frozen=True):
    """What a call gave back; the content is at its beginning."""

    response: wire.Response
    content: BinaryIO


class Calls:
    """Runs calls for the workspaces of one installation."""

    def __init__(
        self, engine: Engine, images: Images, options: DockerOptions, labels: Mapping[str, str]
    ) -> None:
        self._engine = engine
        self._images = images
        self._options = options
        self._labels = labels

    async def run(
        self,
        workspace_id: UUID,
        request: wire.Request,
        payload: BinaryIO | None = None,
        *,
        network: bool = False,
    ) -> Answer:
        """Raises `CallFailed`, and `EngineAway`."""
        call_id = uuid4()
        config = await self._config(workspace_id, call_id, request, network=network)
        container = await self._engine.create(names.call(workspace_id, call_id), config)
        try:
            async with asyncio.timeout(request.seconds + SLACK_SECONDS):
                return await self._converse(container, request, payload)
        except TimeoutError as error:
            raise CallFailed("the container beside the agent did not answer in time") from error
        finally:
            await asyncio.shield(self._bury(container))

    async def _bury(self, container: str) -> None:
        """Remove what is left of a call. What resists is swept after its deadline."""
        try:
            await self._engine.delete(container)
        except ProvisionError as error:
            log.warning("call_left_behind", container=container, error=str(error.__cause__ or error))

    async def _config(
        self, workspace_id: UUID, call_id: UUID, request: wire.Request, *, network: bool
    ) -> dict[str, Any]:
        image, launched = await self._surroundings(workspace_id)
        labels = {
            **self._labels,
            names.KIND: names.CALL,
            names.WORKSPACE: str(workspace_id),
            names.INSTANCE: str(call_id),
            names.DEADLINE: str(int(time.time() + request.seconds + SLACK_SECONDS)),
        }
        isolation = Isolation(
            tier=STANDARD_TIER,
            size=self._options.sizes.get(STANDARD_TIER, SIZES[STANDARD_TIER]),
            privileged=False,
        )
        places = {
            "HOME": HOME,
            "WORKSPACE_DIR": WORKSPACE,
            "WORKSPACE_CONFIG_PATH": CONFIGS,
            "PLUGINS_DIR": PLUGINS,
        }
        return {
            "Image": image,
            "Entrypoint": COMMAND,
            "Cmd": [],
            "User": f"{USER}:{USER}",
            "WorkingDir": "/",
            "Env": ["LANG=C.UTF-8", *(f"{name}={path}" for name, path in places.items())],
            "Labels": labels,
            "Healthcheck": NO_PROBE,
            "OpenStdin": True,
            "StdinOnce": True,
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "HostConfig": {
                **isolation.host_config(),
                "Binds": call_binds(launched, _four(names.volumes(workspace_id))),
                "NetworkMode": self._options.network if network else "none",
                "AutoRemove": True,
                "Init": True,
            },
        }

    async def _surroundings(self, workspace_id: UUID) -> tuple[str, list[str]]:
        """The image and the mounts of the agent, also of one that ended; else what a new one would have."""
        found = await self._engine.inspect(names.container(workspace_id))
        if found is not None and found["Config"]["Labels"].get(names.WORKSPACE) == str(workspace_id):
            return str(found["Image"]), list(found["HostConfig"].get("Binds") or ())
        for name in names.volumes(workspace_id):
            labels = {**self._labels, names.WORKSPACE: str(workspace_id)}
            await self._engine.ensure_volume(name, labels)
        reference = self._images.any_reference()
        await self._images.ensure(reference)
        return reference, []

    async def _converse(self, container: str, request: wire.Request, payload: BinaryIO | None) -> Answer:
        try:
            async with self._engine.attach(container) as stream:
                await self._engine.start(container)
                await stream.write_in(wire.pack(request))
                while payload is not None and (chunk := payload.read(CHUNK_BYTES)):
                    await stream.write_in(chunk)
                return await _read_answer(stream)
        except DockerError as error:
            raise EngineAway from error


def _four(volumes: tuple[str, ...]) -> tuple[str, str, str, str]:
    configs, workspace, home, plugins = volumes
    return configs, workspace, home, plugins


async def _read_answer(stream: Stream) -> Answer:
    head = bytearray()
    response: wire.Response | None = None
    content = cast(BinaryIO, SpooledTemporaryFile(SPOOL_BYTES))  # noqa: SIM115 handed on
    complaint = bytearray()
    missing = 0
    while response is None or missing > 0:
        message = await stream.read_out()
        if message is None:
            log.warning("call_broken", stderr=complaint.decode(errors="replace"))
            raise CallFailed("the container beside the agent ended early")
        if message.stream != STDOUT:
            complaint = (complaint + message.data)[-MAX_COMPLAINT_BYTES:]
            continue
        data = message.data
        if response is None:
            head += data
            if (parsed := _parse(head)) is None:
                continue
            response, data = parsed
            missing = response.size
        content.write(data)
        missing -= len(data)
    content.seek(0)
    return Answer(response, content)


def _parse(head: bytearray) -> tuple[wire.Response, bytes] | None:
    """The header of a response and the bytes after it, once all of it is there."""
    prefix = wire.PREFIX.size
    if len(head) < prefix:
        return None
    try:
        end = prefix + wire.header_size(bytes(head[:prefix]))
        if len(head) < end:
            return None
        return msgspec.json.decode(bytes(head[prefix:end]), type=wire.Response), bytes(head[end:])
    except (wire.Broken, msgspec.MsgspecError) as error:
        raise CallFailed("the container beside the agent gave no proper answer") from error
