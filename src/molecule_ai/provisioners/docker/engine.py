"""The few calls to the container engine that agents need, with its errors translated at this edge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import aiodocker
import aiohttp
import msgspec
from aiodocker.exceptions import DockerError
from aiodocker.stream import Stream

from molecule_ai.provisioners.errors import ProvisionError

CALL_TIMEOUT = aiohttp.ClientTimeout(total=120, sock_connect=10)
CANNOT_CONNECT = 900  # how aiodocker numbers it
DELETE_PAUSES = (0.1, 0.3, 1.0)  # seconds
PORT_TAKEN = ("already in use", "already allocated")

Json = dict[str, Any]


class EngineAway(ProvisionError):
    """the container engine cannot be reached"""

    def __init__(self) -> None:
        super().__init__("the container engine cannot be reached")


class EngineRefused(ProvisionError):
    """the container engine refused the request"""

    def __init__(self, text: str = "the container engine refused the request") -> None:
        super().__init__(text)


class NameTaken(EngineRefused):
    """a container of this name exists"""


class PortTaken(EngineRefused):
    """the port is in use"""


class Missing(EngineRefused):
    """there is no such thing in the engine"""


class Engine:
    """A connection to one engine; opened by the first call, in the loop of that call."""

    def __init__(self, host: str = "") -> None:
        self._host = host
        self._docker: aiodocker.Docker | None = None
        self._gateways: dict[str, str] = {}

    async def close(self) -> None:
        if self._docker is not None:
            await self._docker.close()
            self._docker = None

    # Containers

    async def containers(self, labels: Mapping[str, str], *, is_running: bool = False) -> list[Json]:
        """Every container with these labels, newest first."""
        with _translated():
            filters = {"label": [f"{name}={value}" for name, value in labels.items()]}
            params: Json = {"all": not is_running, "filters": _json(filters)}
            found = await self._api._query_json("containers/json", params=params)
        return sorted(found, key=lambda entry: entry["Created"], reverse=True)

    async def inspect(self, container: str) -> Json | None:
        """What the engine knows of a container; None when there is none."""
        with suppress(Missing), _translated():
            found: Json = await self._api._query_json(f"containers/{container}/json")
            return found
        return None

    async def create(self, name: str, config: Json) -> str:
        """Create a container, which does not run yet. Raises `NameTaken`, `Missing` without the image."""
        with _translated():
            created = await self._api.containers.create(config, name=name)
            return str(created.id)

    async def start(self, container: str) -> None:
        """Raises `PortTaken`."""
        with _translated():
            await self._api.containers.container(container).start()

    async def stop(self, container: str, grace: int) -> None:
        """Ask it to end, kill it after `grace` seconds; the engine does not revive it. Idempotent."""
        with suppress(Missing), _translated():
            await self._api.containers.container(container).stop(t=grace)

    async def delete(self, container: str) -> None:
        """Kill and remove a container, not its volumes. Idempotent, also while it is being removed."""
        for pause in (*DELETE_PAUSES, None):
            try:
                with suppress(Missing, NameTaken), _translated():
                    await self._api.containers.container(container).delete(force=True)
                return
            except EngineRefused:
                # Podman refuses to kill what is ending at this very moment.
                if pause is None:
                    raise
                await asyncio.sleep(pause)

    def attach(self, container: str) -> Stream:
        return self._api.containers.container(container).attach(stdin=True, stdout=True, stderr=True)

    async def put(self, container: str, path: str, archive: bytes) -> None:
        """Unpack an archive into a directory of a container, which need not run."""
        with _translated():
            # The public method reads the answer as JSON, and Podman's is empty.
            query = self._api._query(
                f"containers/{container}/archive",
                "PUT",
                params={"path": path},
                data=archive,
                headers={"Content-Type": "application/x-tar"},
            )
            async with query as response:
                await response.read()

    async def has(self, container: str, path: str) -> bool:
        """Whether there is a file of this path in a container, which need not run."""
        # The public method downloads the file, which an agent may have made as large as it likes.
        with _translated():
            await self._api._check_version()
            url = self._api._canonicalize_url(f"containers/{container}/archive", versioned_api=True)
            async with self._api.session.head(url, params={"path": path}) as response:
                if response.status not in (200, 404):
                    raise DockerError(response.status, "cannot look into the container")
                return response.status == 200

    async def log(self, container: str, lines: int) -> str:
        """The last lines that a container has printed."""
        with suppress(Missing), _translated():
            found = await self._api.containers.container(container).log(stdout=True, stderr=True, tail=lines)
            return "".join(found)
        return ""

    # Volumes and networks

    async def has_volume(self, name: str) -> bool:
        with suppress(Missing), _translated():
            await self._api.volumes.get(name)
            return True
        return False

    async def ensure_volume(self, name: str, labels: Mapping[str, str]) -> None:
        with suppress(NameTaken), _translated():
            await self._api.volumes.create({"Name": name, "Labels": dict(labels)})

    async def delete_volume(self, name: str) -> None:
        with suppress(Missing), _translated():
            await self._api.volumes.get(name)
            await aiodocker.volumes.DockerVolume(self._api, name).delete()

    async def ensure_network(self, name: str, labels: Mapping[str, str]) -> None:
        """Of several servers at once, one creates it; the others meet a conflict and go on."""
        if await self._network(name) is not None:
            return
        config = {"Name": name, "Driver": "bridge", "Labels": dict(labels), "CheckDuplicate": True}
        try:
            with _translated():
                await self._api.networks.create(config)
        except EngineRefused:
            if await self._network(name) is None:
                raise

    async def is_member(self, container: str, network: str) -> bool:
        """Whether a container of this engine is in a network."""
        found = await self.inspect(container)
        return found is not None and network in (found["NetworkSettings"].get("Networks") or {})

    async def host_gateway(self, network: str) -> str:
        """What `host.docker.internal` has to be in this engine: its own word for it, or the address.

        Podman knows the word since 4.7; the gateway of the network is the host for every version.
        """
        if network not in self._gateways:
            with _translated():
                version = await self._api.version()
            is_podman = any("Podman" in part.get("Name", "") for part in version.get("Components") or ())
            found = await self._network(network) if is_podman else None
            addresses = [
                entry.get("Gateway") for entry in ((found or {}).get("IPAM") or {}).get("Config") or ()
            ]
            self._gateways[network] = next((a for a in addresses if a and ":" not in a), "host-gateway")
        return self._gateways[network]

    async def _network(self, name: str) -> Json | None:
        with suppress(Missing), _translated():
            found: Json = await (await self._api.networks.get(name)).show()
            return found
        return None

    # Images

    async def image(self, reference: str) -> Json | None:
        """What is known of an image that is here; None when it is not."""
        with suppress(Missing), _translated():
            found: Json = await self._api.images.inspect(reference)
            return found
        return None

    async def pull(self, reference: str, *, auth: Mapping[str, str] | None, platform: str) -> None:
        """Fetch an image anew. Raises `EngineRefused` with what the registry said as its cause."""
        with _translated():
            progress = self._api.images.pull(
                reference, auth=auth, stream=True, platform=platform or None, timeout=None
            )
            async for step in progress:
                if problem := step.get("error"):
                    raise DockerError(500, str(problem))

    # Events

    async def deaths(self, labels: Mapping[str, str]) -> AsyncIterator[str]:
        """The name of every container with these labels that ends, while the connection lasts."""
        filters = {
            "type": ["container"],
            "event": ["die", "died"],
            "label": [f"{name}={value}" for name, value in labels.items()],
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        with _translated():
            query = self._api._query("events", params={"filters": _json(filters)}, timeout=timeout)
            async with query as response:
                async for line in response.content:
                    if line.strip():
                        yield str(_event_name(line))

    @property
    def _api(self) -> aiodocker.Docker:
        if self._docker is None:
            try:
                self._docker = aiodocker.Docker(url=self._host or None, timeout=CALL_TIMEOUT)
            except (AssertionError, ValueError) as error:
                raise EngineAway from error
        return self._docker


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DockerError as error:
        raise _translation(error) from error
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise EngineAway from error


def _translation(error: DockerError) -> ProvisionError:
    text = str(error.message).lower()
    match error.status:
        case 404:
            return Missing()
        case status if status == CANNOT_CONNECT:
            return EngineAway()
        case 409:
            return NameTaken()
        case _ if any(words in text for words in PORT_TAKEN):
            # Podman says of a name, too, that it is already in use.
            return NameTaken() if "name" in text and "port" not in text else PortTaken()
        case _:
            return EngineRefused()


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _event_name(line: bytes) -> str:
    actor = msgspec.json.decode(line).get("Actor") or {}
    return str((actor.get("Attributes") or {}).get("name", ""))
