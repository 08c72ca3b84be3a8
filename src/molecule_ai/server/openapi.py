"""The OpenAPI document: generated from the types, committed, and compared by a test."""

from __future__ import annotations

from typing import Any

from litestar import Litestar
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from molecule_ai.server.auth.tiers import Tier


def config(version: str) -> OpenAPIConfig:
    """Served at `/docs`, as `/docs/openapi.json` and `/docs/openapi.yaml`."""
    return OpenAPIConfig(
        title="Molecule management API",
        version=version,
        description="One organization of AI agents: workspaces, messages, schedules, approvals, events.",
        path="/docs",
        render_plugins=[SwaggerRenderPlugin(), JsonRenderPlugin(), YamlRenderPlugin()],
        components=Components(security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")}),
    )


def document(app: Litestar) -> dict[str, Any]:
    """The document with what Litestar cannot know: each operation's tier and how to authenticate."""
    schema: dict[str, Any] = app.openapi_schema.to_schema()
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            tier = handler.opt.get("tier")
            for method in getattr(handler, "http_methods", ()) if tier else ():
                operation = schema["paths"][route.path_format][method.lower()]
                operation["x-tier"] = tier.value
                operation["security"] = [] if tier is Tier.NONE else [{"bearer": []}]
    return schema
