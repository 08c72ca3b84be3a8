"""Routes of the canvas room (contract 06 §8)."""

from __future__ import annotations

from molecule_ai.kernel.http import Here, JSONBody, get, put
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier

from .errors import InvalidViewport
from .schemas import Viewport, ViewportSaved, ViewportUpdate
from .service import Canvas


@get("/canvas/viewport", Tier.NONE, knows_person=True, tags=["canvas"])
async def get_canvas_viewport(canvas: Here[Canvas], caller: Here[Principal]) -> Viewport:
    """Show which part of the canvas was looked at last, by the caller if it is a known person."""
    return await canvas.viewport(caller)


@put(
    "/canvas/viewport",
    Tier.CANVAS_OR_BEARER,
    errors=[InvalidViewport],
    invalid_body="invalid viewport data",
    tags=["canvas"],
)
async def set_canvas_viewport(
    canvas: Here[Canvas], caller: Here[Principal], data: JSONBody[ViewportUpdate]
) -> ViewportSaved:
    """Keep which part of the canvas is looked at."""
    await canvas.save(caller, data)
    return ViewportSaved()


handlers = [get_canvas_viewport, set_canvas_viewport]
