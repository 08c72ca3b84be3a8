"""Routes of the operations room."""

from __future__ import annotations

from litestar import Response

from molecule_ai import __version__
from molecule_ai.kernel.http import ApiRequest, FromQuery, Here, get
from molecule_ai.server.auth.presented import bearer_of
from molecule_ai.server.auth.tiers import Tier
from molecule_ai.server.settings import Settings

from .metrics import CONTENT_TYPE, Metrics, MetricsTokenRequired
from .schemas import BuildInfo, Health, Liveness, OrgIdentity
from .service import NotReady, Operations


@get("/health", Tier.NONE, errors=[NotReady], tags=["operations"])
async def get_health(operations: Here[Operations], ready: FromQuery[bool] = False) -> Health:
    """Tell whether the process serves; `?ready=1` also whether it should get traffic."""
    return await operations.health(ready=ready)


@get("/buildinfo", Tier.NONE, tags=["operations"])
async def get_buildinfo(settings: Here[Settings]) -> BuildInfo:
    """Tell which build is running."""
    return BuildInfo(settings.git_sha, __version__, settings.built_at or None)


@get("/org/identity", Tier.NONE, tags=["operations"])
async def get_org_identity(settings: Here[Settings]) -> OrgIdentity:
    """Tell the organization's display name."""
    return OrgIdentity(settings.molecule_org_name)


@get("/admin/liveness", Tier.ADMIN, tags=["operations"])
async def get_liveness(operations: Here[Operations]) -> Liveness:
    """Show every engine of the answering process: last tick, restarts, last error."""
    return operations.liveness()


@get(
    "/metrics",
    Tier.NONE,
    errors=[MetricsTokenRequired],
    tags=["operations"],
    media_type=CONTENT_TYPE,
    also={200: str},
)
async def get_metrics(metrics: Here[Metrics], request: ApiRequest) -> Response[bytes]:
    """Show what the workers of this server counted, for Prometheus."""
    return Response(await metrics.render(bearer_of(request)), media_type=CONTENT_TYPE)


handlers = [get_health, get_buildinfo, get_org_identity, get_liveness, get_metrics]
