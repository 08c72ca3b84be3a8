"""The OpenAPI document: generated from the types, committed, and compared by a test."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from litestar import Litestar, Router
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.static_files import create_static_files_router

from molecule_ai.server.auth.tiers import Tier

_ASSETS = "/docs/assets"


def config(version: str) -> OpenAPIConfig:
    """Served at `/docs`, as `/docs/openapi.json` and `/docs/openapi.yaml`."""
    return OpenAPIConfig(
        title="Molecule management API",
        version=version,
        description="One organization of AI agents: workspaces, messages, schedules, approvals, events.",
        openapi_router=Router("/docs", route_handlers=[], opt={"tier": Tier.NONE}),
        render_plugins=[
            SwaggerRenderPlugin(
                favicon=f'<link rel="icon" href="{_ASSETS}/favicon-32x32.png">',
                js_url=f"{_ASSETS}/swagger-ui-bundle.js",
                css_url=f"{_ASSETS}/swagger-ui.css",
                standalone_preset_js_url=f"{_ASSETS}/swagger-ui-standalone-preset.js",
            ),
            JsonRenderPlugin(),
            YamlRenderPlugin(),
        ],
        components=Components(security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")}),
    )


def assets() -> Router:
    """The API browser's own files, so that it works without any other host."""
    # Found without being imported: its Python part brings a template engine that nobody here uses.
    folder = Path(str(distribution("swagger-ui-py").locate_file("swagger_ui/static")))
    return create_static_files_router(_ASSETS, [folder], opt={"tier": Tier.NONE}, include_in_schema=False)


def document(app: Litestar) -> dict[str, Any]:
    """The document with what Litestar cannot know: each operation's tier and how to authenticate."""
    schema: dict[str, Any] = app.openapi_schema.to_schema()
    schema["paths"] = {path: item for path, item in schema["paths"].items() if not path.startswith("/docs")}
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            path = schema["paths"].get(route.path_format, {})
            for method in {method.lower() for method in getattr(handler, "http_methods", ())} & path.keys():
                tier = handler.opt["tier"]
                path[method]["x-tier"] = tier.value
                path[method]["security"] = [] if tier is Tier.NONE else [{"bearer": []}]
    return schema
