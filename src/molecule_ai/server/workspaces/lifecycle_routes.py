"""Routes of the lifecycle verbs (contract 02 §5)."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from litestar import Response
from litestar.params import QueryParameter

from molecule_ai.kernel.http import ApiRequest, FromPath, FromQuery, Here, JSONBody, get, post
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier

from .boot_log import MAX_CONSOLE_BYTES, BootLog
from .errors import InvalidTemplate, WorkspaceNotFound, WorkspaceRemoved
from .lifecycle import Lifecycle
from .lifecycle_errors import (
    AncestorPaused,
    ConsoleElsewhere,
    ExternalWorkspace,
    HasActiveTasks,
    NoConsole,
    NotHibernatable,
    NotHibernated,
    NotPausable,
    NotPaused,
    NotStopped,
    ProvisionerNotAvailable,
)
from .lifecycle_schemas import (
    BootstrapFailure,
    Changed,
    Console,
    Noted,
    Paused,
    Restart,
    Restarted,
    Resumed,
)
from .status import Status

_TAGS = ["lifecycle"]
_ONE = "/workspaces/{workspace_id:str}"


@post(
    f"{_ONE}/restart",
    Tier.WORKSPACE,
    errors=[
        WorkspaceRemoved,
        InvalidTemplate,
        ExternalWorkspace,
        AncestorPaused,
        ProvisionerNotAvailable,
    ],
    tags=_TAGS,
)
async def restart_workspace(
    lifecycle: Here[Lifecycle],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    reset: FromQuery[str] = "",
    data: JSONBody[Restart | None] = None,
) -> Restarted:
    """Stop the agent and start it afresh."""
    wish = data or Restart()
    if reset == "true" and not wish.reset:
        wish = Restart(
            template=wish.template,
            apply_template=wish.apply_template,
            rebuild_config=wish.rebuild_config,
            reset=True,
        )
    return await lifecycle.restart(caller, workspace_id, wish)


@post(f"{_ONE}/pause", Tier.WORKSPACE, errors=[NotPausable], tags=_TAGS)
async def pause_workspace(
    lifecycle: Here[Lifecycle],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    cascade: FromQuery[str] = "",
) -> Paused:
    """Stop a workspace and everybody below it; `cascade=false` stops it alone."""
    return await lifecycle.pause(caller, workspace_id, cascade=cascade != "false")


@post(
    f"{_ONE}/resume", Tier.WORKSPACE, errors=[NotPaused, AncestorPaused, ProvisionerNotAvailable], tags=_TAGS
)
async def resume_workspace(
    lifecycle: Here[Lifecycle],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    everybody: Annotated[str, QueryParameter(name="all")] = "",
) -> Resumed:
    """Bring back a paused workspace and those paused with it; `all=true` also those paused apart."""
    return await lifecycle.resume(caller, workspace_id, everybody=everybody == "true")


@post(
    f"{_ONE}/hibernate",
    Tier.WORKSPACE,
    errors=[NotHibernatable, ExternalWorkspace, HasActiveTasks, ProvisionerNotAvailable, NotStopped],
    also={202: Changed},
    tags=_TAGS,
)
async def hibernate_workspace(
    lifecycle: Here[Lifecycle],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    request: ApiRequest,
    force: FromQuery[str] = "",
) -> Response[Changed]:
    """Stop an idle agent until a message needs it; `force=true` stops a busy one too.

    The answer comes when the agent has ended: 202 when that takes long, or at once with
    `Prefer: respond-async`.
    """
    await lifecycle.hibernate(caller, workspace_id, force=force == "true")
    waits = "respond-async" not in request.headers.get("prefer", "").lower()
    status = await lifecycle.asleep(workspace_id) if waits else Status.HIBERNATING
    return Response(Changed(status), status_code=202 if status is Status.HIBERNATING else 200)


@post(
    f"{_ONE}/wake",
    Tier.WORKSPACE,
    status=202,
    errors=[WorkspaceRemoved, NotHibernated, ProvisionerNotAvailable],
    tags=_TAGS,
)
async def wake_workspace(
    lifecycle: Here[Lifecycle], caller: Here[Principal], workspace_id: FromPath[UUID]
) -> Changed:
    """Start a hibernated agent."""
    await lifecycle.wake_now(caller, workspace_id)
    return Changed(Status.PROVISIONING)


@post(
    "/admin/workspaces/{workspace_id:str}/bootstrap-failed",
    Tier.ADMIN,
    tags=_TAGS,
)
async def report_bootstrap_failure(
    lifecycle: Here[Lifecycle],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    data: JSONBody[BootstrapFailure | None] = None,
) -> Noted:
    """Note that an agent's machine died before the agent registered."""
    return await lifecycle.bootstrap_failed(caller, workspace_id, data or BootstrapFailure())


@get(
    f"{_ONE}/console",
    Tier.ADMIN,
    errors=[WorkspaceNotFound, NoConsole, ConsoleElsewhere],
    tags=_TAGS,
)
async def read_console(
    boot_log: Here[BootLog], workspace_id: FromPath[UUID], tail: FromQuery[int] = MAX_CONSOLE_BYTES
) -> Console:
    """Read the end of what the agent printed; `tail` is in bytes."""
    return Console(await boot_log.console(workspace_id, tail))


handlers = [
    restart_workspace,
    pause_workspace,
    resume_workspace,
    hibernate_workspace,
    wake_workspace,
    report_bootstrap_failure,
    read_console,
]
