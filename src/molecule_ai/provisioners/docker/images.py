"""Which image a runtime runs on, fetched when it is missing and known by its digest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from molecule_ai.provisioners.errors import ProvisionError

from .engine import Engine, EngineAway, EngineRefused
from .options import DockerOptions

log = structlog.get_logger(__name__)


class ImagePull(ProvisionError):
    """The image of the runtime is not here and cannot be fetched."""

    code = "IMAGE_PULL"


class Images:
    """Looks images up and pulls them, each at most once at a time in this process."""

    def __init__(self, engine: Engine, options: DockerOptions) -> None:
        self._engine = engine
        self._options = options
        self._pulling: dict[str, asyncio.Lock] = {}

    @property
    def references(self) -> Mapping[str, str]:
        """Image by runtime."""
        return self._options.images

    def reference(self, runtime: str) -> str:
        """Raises `ImagePull` for a runtime that has no image."""
        if not (found := self._options.images.get(runtime)):
            raise ImagePull(f"no image is configured for the runtime {runtime}")
        return found

    def any_reference(self) -> str:
        """An image for work beside an agent whose runtime nobody knows."""
        for reference in self._options.images.values():
            if reference:
                return reference
        raise ImagePull("no image is configured for any runtime")

    async def digest(self, reference: str) -> str | None:
        """What tells this image from every other one of its name; None when it is not here."""
        found = await self._engine.image(reference)
        return None if found is None else str(found["Id"]).removeprefix("sha256:")

    async def ensure(self, reference: str) -> str:
        """The digest of the image, which is fetched when it is not here. Raises `ImagePull`."""
        if (digest := await self.digest(reference)) is not None:
            return digest
        async with self._pulling.setdefault(reference, asyncio.Lock()):
            if (digest := await self.digest(reference)) is not None:
                return digest
            return await self.pull(reference)

    async def pull(self, reference: str) -> str:
        """Fetch the newest image of this name and return its digest. Raises `ImagePull`."""
        log.info("image_pull", image=reference)
        try:
            await self._engine.pull(reference, auth=self._credentials(), platform=self._options.platform)
        except EngineAway:
            raise
        except EngineRefused as error:
            raise ImagePull(f"the image {reference} cannot be pulled") from error.__cause__
        if (digest := await self.digest(reference)) is None:
            raise ImagePull(f"the image {reference} was pulled and is not there")
        return digest

    def _credentials(self) -> Mapping[str, str] | None:
        if not self._options.registry_token:
            return None
        return {"username": self._options.registry_user, "password": self._options.registry_token}
