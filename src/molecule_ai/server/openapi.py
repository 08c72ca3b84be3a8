"""The OpenAPI document: generated from the types, committed, and compared by a test."""

from __future__ import annotations

from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme


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
