"""Every route of the server, and what handlers may ask for by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litestar import Litestar
from litestar.di import Provide
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.routes import HTTPRoute
from litestar.types import Scope

from molecule_ai import __version__
from molecule_ai.kernel.http import EXCEPTION_HANDLERS, ApiRequest

from . import openapi
from .a2a import routes as a2a_routes
from .activity import routes as activity_routes
from .approvals import routes as approvals_routes
from .auth.principal import Principal
from .canvas import routes as canvas_routes
from .delegations import routes as delegations_routes
from .events import routes as events_routes
from .images import routes as images_routes
from .mailbox import routes as mailbox_routes
from .operations import routes as operations_routes
from .orgs import routes as orgs_routes
from .registry import routes as registry_routes
from .rooms import Rooms
from .schedules import routes as schedules_routes
from .secrets import routes as secrets_routes
from .tokens import routes as tokens_routes
from .workspaces import configuration_routes, lifecycle_routes, models_routes, teams_routes
from .workspaces import routes as workspaces_routes


class Application(Litestar):
    """Litestar without the plugins for kinds of types that we do not have.

    It loads them when their libraries happen to be installed, and that of pydantic costs each worker
    eight megabytes.
    """

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]


def litestar(rooms: Rooms) -> Litestar:
    """The application: routes, guards and errors."""
    app = Application(
        route_handlers=[
            openapi.assets(),
            *operations_routes.handlers,
            *tokens_routes.handlers,
            *registry_routes.handlers,
            *a2a_routes.handlers,
            *mailbox_routes.handlers,
            *activity_routes.handlers,
            *events_routes.handlers,
            *delegations_routes.handlers,
            *secrets_routes.handlers,
            *workspaces_routes.handlers,
            *configuration_routes.handlers,
            *models_routes.handlers,
            *teams_routes.handlers,
            *lifecycle_routes.handlers,
            *orgs_routes.handlers,
            *schedules_routes.handlers,
            *approvals_routes.handlers,
            *canvas_routes.handlers,
            *images_routes.handlers,
        ],
        dependencies={
            name: Provide(_always(service), sync_to_thread=False)
            for name, service in {
                "settings": rooms.settings,
                "events": rooms.events,
                "history": rooms.history,
                "streams": rooms.streams,
                "tickets": rooms.tickets,
                "operations": rooms.operations,
                "metrics": rooms.metrics,
                "tokens": rooms.tokens,
                "activity": rooms.activity,
                "registry": rooms.registry,
                "beats": rooms.beats,
                "schedules": rooms.schedules,
                "approvals": rooms.approvals,
                "proxy": rooms.proxy,
                "transcripts": rooms.transcripts,
                "mailbox": rooms.mailbox,
                "delegations": rooms.delegations,
                "secrets": rooms.secrets,
                "workspaces": rooms.workspaces,
                "editing": rooms.editing,
                "configuration": rooms.configuration,
                "broadcasts": rooms.broadcasts,
                "models": rooms.models,
                "teams": rooms.teams,
                "lifecycle": rooms.lifecycle,
                "boot_log": rooms.boot_log,
                "orgs": rooms.orgs,
                "canvas": rooms.canvas,
                "images": rooms.images,
            }.items()
        }
        | {
            "caller": Provide(_caller, sync_to_thread=False),
            "address": Provide(_address, sync_to_thread=False),
        },
        guards=[rooms.gatekeeper.guard],
        exception_handlers=EXCEPTION_HANDLERS,
        request_class=ApiRequest,
        request_max_body_size=rooms.settings.max_body_bytes,
        openapi_config=openapi.config(__version__),
        debug=False,
        logging_config=None,
    )
    _look_up_in_turn(app)
    return app


def _look_up_in_turn(app: Litestar) -> None:
    """Have what a handler asks for looked up one after the other.

    Litestar starts a task for each of them, which takes far longer than looking up any of ours.
    """
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for _, wanted in route.route_handler_map.values():
                wanted.dependency_batches = [{one} for batch in wanted.dependency_batches for one in batch]


def _always(service: Any) -> Callable[[], Any]:
    return lambda: service


def _caller(scope: Scope) -> Principal:
    principal: Principal = scope["state"]["principal"]
    return principal


def _address(scope: Scope) -> str:
    """The client's address, as the edge resolved it."""
    client = scope.get("client")
    return str(client[0]) if client else ""
