"""Routes of the orgs room."""

from __future__ import annotations

from litestar import Response
from litestar.openapi.spec import OpenAPIType, Schema

from molecule_ai.kernel.http import ApiRequest, FromQuery, Here, get, post
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier
from molecule_ai.server.workspaces.errors import InvalidTemplate

from . import body, errors
from .schemas import OrgImport, OrgImported, OrgTemplate
from .service import Orgs

_TEXT = Schema(type=OpenAPIType.STRING)
_DOCUMENT = Schema(type=OpenAPIType.OBJECT, description="An organization; needs `name` and `workspaces`.")
_IMPORT = Schema(
    type=OpenAPIType.OBJECT,
    properties={
        "dir": Schema(
            type=OpenAPIType.STRING, description="Name of an org template.", examples=["solo-desk"]
        ),
        "template": Schema(one_of=[_DOCUMENT, _TEXT], description="The document, or its YAML text."),
        "yaml": Schema(type=OpenAPIType.STRING, description="The document as YAML text."),
        "force": Schema(
            type=OpenAPIType.BOOLEAN, description="Do not insist on required environment variables."
        ),
        "mode": Schema(type=OpenAPIType.STRING, enum=["", "merge"]),
        "dry_run": Schema(type=OpenAPIType.BOOLEAN, description="Check and show the plan, change nothing."),
    },
)


@get("/org/templates", Tier.ADMIN, tags=["orgs"])
async def list_org_templates(
    orgs: Here[Orgs], include_invalid: FromQuery[str | None] = None
) -> list[OrgTemplate]:
    """List the organizations that can be imported by name."""
    return await orgs.templates(include_invalid=include_invalid in ("1", "true"))


@post(
    "/org/import",
    Tier.ADMIN,
    status=201,
    also={200: OrgImported, 207: OrgImported},
    reads={"application/json": _IMPORT, "application/yaml": Schema(type=OpenAPIType.STRING)},
    errors=[
        errors.NothingToImport,
        errors.InvalidOrgDirectory,
        errors.BrokenTemplate,
        errors.InvalidMode,
        errors.TemplateNotFound,
        errors.MissingEnvironment,
        errors.DocumentTooLarge,
        errors.ImportRunning,
        errors.TreeChanged,
        errors.ReconcileNotOffered,
        errors.SourceNotOffered,
        InvalidTemplate,
    ],
    tags=["orgs"],
)
async def import_org(
    orgs: Here[Orgs],
    caller: Here[Principal],
    request: ApiRequest,
    force: FromQuery[str | None] = None,
    mode: FromQuery[str | None] = None,
    dry_run: FromQuery[str | None] = None,
) -> Response[OrgImported]:
    """Bring up one workspace per role of an organization; their agents start in the background.

    The body is `{"dir"}`, `{"template"}` or `{"yaml"}`, the document itself as JSON, or as YAML with
    `Content-Type: application/yaml`; then the options stand in the query.
    """
    query = OrgImport(force=force == "true", mode=mode or "", dry_run=dry_run == "true")
    content_type = request.headers.get("content-type", "")
    imported = await orgs.import_org(caller, body.parse(await request.body(), content_type, query))
    status = 200 if query.dry_run or imported.dry_run else 201
    return Response(imported, status_code=207 if imported.error else status)


handlers = [list_org_templates, import_org]
