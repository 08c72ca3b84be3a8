"""Routes of the workspaces room; restart, pause and their kin are in `lifecycle_routes`."""

from __future__ import annotations

from uuid import UUID

from litestar import Response

from molecule_ai.kernel.http import ApiRequest, FromPath, FromQuery, Here, JSONBody, delete, get, patch, post
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier
from molecule_ai.server.secrets.errors import (
    InvalidSecretKey,
    InvalidSecretValue,
    ReservedSecretKey,
    TooManySecrets,
)
from molecule_ai.server.settings import Settings

from . import errors, listing
from .editing import Editing
from .lifecycle import Lifecycle
from .lifecycle_schemas import Removal
from .public_url import public_url
from .schemas import (
    PublicWorkspace,
    Workspace,
    WorkspaceCreate,
    WorkspaceCreated,
    WorkspaceState,
    WorkspaceUpdate,
    WorkspaceUpdated,
)
from .service import Workspaces

_ONE = "/workspaces/{workspace_id:str}"


@post(
    "/workspaces",
    Tier.ADMIN,
    status=201,
    invalid_body="invalid workspace payload",
    errors=[
        errors.InvalidWorkspacePayload,
        errors.InvalidWorkspaceFields,
        errors.InvalidTemplate,
        errors.InvalidWorkspaceDirectory,
        errors.InvalidWorkspaceAccess,
        errors.InvalidTier,
        errors.InvalidUrl,
        errors.ParentNotFound,
        errors.UnknownRuntime,
        errors.RuntimeUnresolved,
        errors.ModelRequired,
        errors.UnregisteredModel,
        errors.NamesExhausted,
        errors.PlatformExists,
        errors.PlatformHasNoParent,
        InvalidSecretKey,
        ReservedSecretKey,
        InvalidSecretValue,
        TooManySecrets,
    ],
    tags=["workspaces"],
)
async def create_workspace(
    workspaces: Here[Workspaces],
    caller: Here[Principal],
    settings: Here[Settings],
    request: ApiRequest,
    data: JSONBody[WorkspaceCreate],
) -> WorkspaceCreated:
    """Create a workspace; its agent starts in the background."""
    return await workspaces.create(caller, data, platform_url=public_url(request, settings))


@get("/workspaces", Tier.ADMIN, also={304: None}, errors=[errors.InvalidFilter], tags=["workspaces"])
async def list_workspaces(
    workspaces: Here[Workspaces],
    request: ApiRequest,
    status: FromQuery[str | None] = None,
    parent_id: FromQuery[str | None] = None,
    runtime: FromQuery[str | None] = None,
    kind: FromQuery[str | None] = None,
    q: FromQuery[str | None] = None,
    limit: FromQuery[str | None] = None,
    cursor: FromQuery[str | None] = None,
) -> Response[list[Workspace]]:
    """List workspaces, oldest first.

    `parent_id=null` lists the roots. With `limit`, the header `X-Next-Cursor` names the next page.
    An unchanged list answers 304 to its `ETag` in `If-None-Match`.
    """
    page = await workspaces.page(
        listing.wanted(
            status=status, parent_id=parent_id, runtime=runtime, kind=kind, q=q, limit=limit, cursor=cursor
        )
    )
    headers = {"ETag": page.etag}
    if page.next_cursor:
        headers["X-Next-Cursor"] = page.next_cursor
    if page.etag in request.headers.get("if-none-match", ""):
        return Response(b"", status_code=304, headers=headers)  # type: ignore[arg-type]  # encoded already
    return Response(page.body, media_type="application/json", headers=headers)  # type: ignore[arg-type]


@get(
    _ONE,
    Tier.WORKSPACE_OR_REDACTED,
    errors=[errors.WorkspaceNotFound, errors.WorkspaceRemoved],
    tags=["workspaces"],
)
async def get_workspace(
    workspaces: Here[Workspaces],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    include_removed: FromQuery[str | None] = None,
) -> Workspace | PublicWorkspace:
    """Show one workspace; without its own or an administrator's credential some fields are left out."""
    return await workspaces.show(caller, workspace_id, include_removed=include_removed == "true")


@patch(
    _ONE,
    Tier.WORKSPACE_OR_COSMETIC,
    errors=[
        errors.InvalidField,
        errors.InvalidTier,
        errors.InvalidWorkspaceDirectory,
        errors.InvalidWorkspaceAccess,
        errors.FieldRequiresAdmin,
        errors.WorkspaceRemoved,
        errors.NameTaken,
        errors.ParentCycle,
        errors.ParentNotFound,
        errors.PlatformHasNoParent,
        errors.UnknownRuntime,
        errors.RuntimeKindFixed,
    ],
    tags=["workspaces"],
)
async def update_workspace(
    editing: Here[Editing],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    data: JSONBody[WorkspaceUpdate],
) -> WorkspaceUpdated:
    """Change a workspace: all given fields, or none of them."""
    return await editing.update(caller, workspace_id, data)


@get(f"{_ONE}/state", Tier.WORKSPACE_STATE, errors=[errors.StateGone], tags=["workspaces"])
async def get_workspace_state(workspaces: Here[Workspaces], workspace_id: FromPath[UUID]) -> WorkspaceState:
    """Tell a polling agent whether it may go on."""
    return await workspaces.state(workspace_id)


@delete(
    _ONE,
    Tier.ADMIN,
    errors=[
        errors.InvalidWorkspaceId,
        errors.WorkspaceNotFound,
        errors.ConfirmNameRequired,
        errors.ConfirmNameMismatch,
        errors.ConfirmationRequired,
    ],
    tags=["workspaces"],
)
async def delete_workspace(
    lifecycle: Here[Lifecycle],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    request: ApiRequest,
    confirm: FromQuery[str | None] = None,
    purge: FromQuery[str | None] = None,
) -> Removal:
    """Delete a workspace; with `confirm=true` its whole subtree, with `purge=true` its history too.

    The header `X-Confirm-Name` holds its current name, percent-encoded where it is not plain ASCII.
    """
    return await lifecycle.remove(
        caller,
        workspace_id,
        confirm_name=request.headers.get("x-confirm-name"),
        confirm=confirm == "true",
        purge=purge == "true",
    )


handlers = [
    create_workspace,
    list_workspaces,
    get_workspace,
    update_workspace,
    delete_workspace,
    get_workspace_state,
]
