"""Routes of the images room."""

from __future__ import annotations

from molecule_ai.kernel.http import FromQuery, Here, post
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier

from . import errors
from .schemas import Refreshed
from .service import Images


@post(
    "/admin/workspace-images/refresh",
    Tier.ADMIN,
    status=200,
    errors=[errors.NoDocker, errors.UnknownRuntime, errors.RefreshRunning, errors.RefreshFailed],
    tags=["images"],
)
async def refresh_workspace_images(
    images: Here[Images],
    caller: Here[Principal],
    runtime: FromQuery[str | None] = None,
    recreate: FromQuery[bool] = True,
) -> Refreshed:
    """Pull the newest images and restart the agents that run on older ones."""
    return await images.refresh(runtime or None, recreate=recreate, actor=caller.label)


handlers = [refresh_workspace_images]
