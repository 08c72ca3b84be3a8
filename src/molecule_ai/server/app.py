"""The composition root: the one list of rooms, engines and adapters; only here are things built."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from litestar import Litestar
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Scope

from molecule_ai import __version__
from molecule_ai.kernel import log
from molecule_ai.kernel.clock import Clock, Ids, RandomIds, SystemClock
from molecule_ai.kernel.db import Database
from molecule_ai.kernel.db import now as database_now
from molecule_ai.kernel.engine import Supervisor
from molecule_ai.kernel.http import EXCEPTION_HANDLERS, ApiRequest
from molecule_ai.kernel.notify import Notifications
from molecule_ai.kernel.parent import end_with_parent
from molecule_ai.provisioners.base import Provisioner
from molecule_ai.provisioners.none import NoProvisioner
from molecule_ai.provisioners.process import ProcessProvisioner
from molecule_ai.runtime.preload import preload

from . import openapi
from .a2a import routes as a2a_routes
from .a2a.aftermath import Aftermath
from .a2a.agents import Agents
from .a2a.queueing import Queueing
from .a2a.service import Proxy
from .a2a.waking import Sleepers
from .activity import routes as activity_routes
from .activity.retention import ActivityRetention
from .activity.service import Activity
from .approvals import routes as approvals_routes
from .approvals.expiry import ApprovalExpiry
from .approvals.service import Approvals
from .approvals.service import Policy as ApprovalPolicy
from .auth.gatekeeper import Gatekeeper
from .auth.identities import Identities
from .auth.principal import Principal
from .delegations import routes as delegations_routes
from .delegations.engine import DelegationSweeper
from .delegations.log import DelegationLog
from .delegations.service import Delegations
from .edge.buckets import Buckets
from .edge.cors import Cors
from .edge.facts import parse_networks
from .edge.front import Front
from .edge.limiter import Limiter
from .edge.recorder import Recorder, Siblings
from .edge.tenant import TenantGuard
from .events import routes as events_routes
from .events.history import History
from .events.hub import Hub
from .events.relay import Relay
from .events.retention import BusSweeper, EventRetention
from .events.service import Events
from .events.sockets import SocketEndpoint, SocketsFirst
from .events.streams import Streams
from .events.tickets import Tickets
from .farewell import Farewell
from .mailbox import routes as mailbox_routes
from .mailbox.chain import Limits
from .mailbox.couriers import Couriers
from .mailbox.engine import CHANNEL as MAILBOX
from .mailbox.engine import LeaseKeeper, MailboxEngine
from .mailbox.service import Mailbox
from .operations import routes as operations_routes
from .operations.metrics import Metrics
from .operations.service import Operations
from .orgs import routes as orgs_routes
from .orgs.catalog import Catalog, bundled
from .orgs.plan import Planner
from .orgs.service import Orgs
from .orgs.trees import Trees
from .registry import routes as registry_routes
from .registry.beats import Beats
from .registry.fast import FastBeats
from .registry.service import Registry
from .schedules import routes as schedules_routes
from .schedules.delivery import REPLY_KIND as SCHEDULE_RUN
from .schedules.ledger import Ledger, rules_of
from .schedules.messages import MailboxDelivery
from .schedules.scheduler import RunReaper, Scheduler
from .schedules.service import CHANNEL as SCHEDULES_CHANGED
from .schedules.service import Schedules
from .secrets import routes as secrets_routes
from .secrets.keys import keyring
from .secrets.service import Secrets
from .settings import BadSetting, Settings, passthrough, read
from .tokens import routes as tokens_routes
from .tokens.bootstrap import bootstrap_token
from .tokens.service import Tokens
from .traffic.engine import TrafficKeeper
from .traffic.service import Traffic
from .workspaces import configuration_routes, lifecycle_routes, models_routes, teams_routes
from .workspaces import routes as workspaces_routes
from .workspaces.arrivals import Arrivals
from .workspaces.boot_log import BootLog
from .workspaces.configuration import Configuration
from .workspaces.creation import Creation
from .workspaces.editing import Editing
from .workspaces.inbound import InboundSecrets
from .workspaces.launches import Launches
from .workspaces.lifecycle import RECONCILE, Lifecycle
from .workspaces.liveness import HibernationMonitor, Liveness, ProvisionTimeouts
from .workspaces.losses import Losses
from .workspaces.models import Models
from .workspaces.reconciler import Reconciler
from .workspaces.relaunch import Relaunch
from .workspaces.resolution import Resolver
from .workspaces.restart_note import Notes
from .workspaces.service import Workspaces
from .workspaces.sweeper import HealthSweep, OrphanSweeper
from .workspaces.teams import Teams
from .workspaces.templates import Templates
from .workspaces.tree import Tree


class Server:
    """One replica: everything built and connected. `start` before serving, `stop` after."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        ids: Ids | None = None,
        provisioner: Provisioner | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.ids = ids or RandomIds()
        self.db = Database(settings.database_url, max_connections=settings.pool_size)
        self.supervisor = Supervisor(self.clock)
        self.notifications = Notifications(self.db)
        self.identities = Identities(self.db, settings)
        self.gatekeeper = Gatekeeper(self.identities, settings)
        self.events = Events(self.db, self.clock)
        self.tree = Tree(self.db)
        self.base_url = (settings.external_platform_url or settings.agent_platform_url).rstrip("/")
        self.tokens = Tokens(self.db, self.events, self.ids)
        self.hub = Hub(self.tree, self.tokens.dead)
        self.relay = Relay(self.db, self.notifications, self.hub.deliver, self.clock)
        self.history = History(self.db)
        self.tickets = Tickets(self.db, self.tokens.dead)
        self.gatekeeper.redeem = self.tickets.redeem
        self.streams = Streams(self.db, self.hub, self.relay)
        self.activity = Activity(
            self.db, self.events, self.clock, self.ids, self.streams, base_url=self.base_url
        )
        self.arrivals = Arrivals()
        self.starts_agents = settings.backend != "none"
        self.beats = Beats(self.db, self.events, self.arrivals, starts_agents=self.starts_agents)
        self.keyring = keyring(settings)
        self.inbound = InboundSecrets(self.keyring)
        self.registry = Registry(
            self.db,
            self.events,
            self.tokens,
            self.arrivals,
            self.inbound,
            self.identities,
            policy=settings.url_policy,
            platform_url=self.base_url,
            heartbeat_interval_seconds=settings.heartbeat_interval_seconds,
            starts_agents=self.starts_agents,
            prefers_proxy=settings.saas,
        )
        self.traffic = Traffic(self.db, self.events, self.ids, _limits(settings))
        self.mailbox = Mailbox(self.db, self.events, self.traffic, self.activity, self.clock, self.ids)
        self.ledger = Ledger(
            self.events,
            self.activity,
            MailboxDelivery(self.mailbox),
            self.ids,
            rules_of(
                poll_seconds=settings.scheduler_poll_seconds,
                fire_timeout_seconds=settings.schedule_fire_timeout_seconds,
                misfire_grace_seconds=settings.scheduler_misfire_grace_seconds,
                busy_policy=settings.scheduler_busy_policy,
            ),
            replica=f"{socket.gethostname()}:{os.getpid()}",
        )
        self.schedules = Schedules(self.db, self.events, self.ledger, self.ids, now=database_now)
        self.mailbox.replies[SCHEDULE_RUN] = self.schedules.settled
        self.mailbox.dispatches[SCHEDULE_RUN] = self.schedules.started
        self.approvals = Approvals(
            self.db,
            self.events,
            self.identities,
            self.ids,
            ApprovalPolicy(
                ttl=timedelta(seconds=settings.approval_ttl_seconds)
                if settings.approval_ttl_seconds
                else None,
                allows_own_decision=settings.approvals_allow_self_decide,
                browser_origins=settings.origins,
            ),
        )
        self.delegations = Delegations(
            self.db,
            self.events,
            self.mailbox,
            self.traffic,
            DelegationLog(self.activity, inbox_push=settings.delegation_result_inbox_push),
            self.ids,
            key_window=timedelta(seconds=settings.delegation_idempotency_window_seconds),
        )
        self.secrets = Secrets(self.db, self.keyring, self.events)
        templates = Templates(Path(settings.configs_dir) if settings.configs_dir else None)
        resolver = Resolver(templates)
        creation = Creation(self.ids, resolver, settings.url_policy, has_backend=self.starts_agents)
        self.workspaces = Workspaces(self.db, self.events, self.secrets, self.tokens, creation)
        self.editing = Editing(
            self.db,
            self.events,
            resolver,
            self_patch_sensitive=settings.workspace_self_patch_sensitive and not settings.saas,
        )
        self.provisioner = provisioner or _provisioner(settings)
        self.boot_log = BootLog(self.db, self.provisioner, self.secrets)
        self.losses = Losses(
            self.db,
            self.events,
            self.provisioner,
            self.clock,
            self.boot_log.tail,
            has_backend=self.starts_agents,
        )
        self.lifecycle = Lifecycle(
            self.db,
            self.events,
            self.tokens,
            Relaunch(templates),
            has_backend=self.starts_agents,
            confirms_deletes=settings.workspace_delete_confirm == "strict",
        )
        self.lifecycle.on_removed(self.schedules.disable_for)
        self.secrets.restarts = self.lifecycle
        self.lifecycle.on_removed(self.mailbox.target_removed)
        self.models = Models(self.db, self.events, self.secrets, self.lifecycle, resolver)
        self.configuration = Configuration(self.db, self.events, self.tokens, self.workspaces)
        self.teams = Teams(self.db, self.events, self.workspaces, creation, self.lifecycle, self.provisioner)
        notes = Notes(self.secrets, self.mailbox)
        self.arrivals.on_online(notes.agent_online)
        self.reconciler = Reconciler(
            self.db,
            self.events,
            self.tokens,
            self.provisioner,
            Launches(
                self.secrets,
                self.provisioner,
                org_id=settings.molecule_org_id or None,
                git_email_domain=settings.agent_git_email_domain,
            ),
            self.losses,
            notes,
            self.inbound,
            self.ids,
            has_backend=self.starts_agents,
            concurrency=settings.provision_concurrency,
            wake=lambda: self.supervisor.wake(Reconciler.name),
        )
        allowed = passthrough(settings.org_import_env_passthrough)
        self.orgs = Orgs(
            self.db,
            self.events,
            self.ids,
            self.secrets,
            creation,
            Catalog(Path(settings.org_templates_dir) if settings.org_templates_dir else bundled()),
            Trees(self.workspaces, self.schedules, self.approvals, self.ids),
            planner=lambda root: Planner(templates, resolver, allowed, root),
        )
        self.agents = Agents(
            settings.url_policy,
            self.traffic,
            self.losses,
            idle_seconds=float(settings.a2a_idle_timeout_seconds),
        )
        self.sleepers = Sleepers(self.db, self.traffic, self.lifecycle)
        self.proxy = Proxy(
            self.db,
            self.activity,
            Aftermath(self.activity, self.events),
            self.traffic,
            Queueing(self.db, self.mailbox, self.traffic, self.activity, self.events, self.clock),
            self.agents,
            self.sleepers,
            self.clock,
            self.ids,
            joins=self.schedules.find_manual_run,
            canvas_budget_seconds=settings.canvas_sync_budget_seconds,
        )
        self.proxy.listeners.append(self.delegations.heard)
        self.couriers = Couriers(
            self.db,
            self.mailbox,
            self.traffic,
            self.agents,
            self.activity,
            limit=settings.mailbox_max_concurrent,
            on_free=lambda: self.supervisor.wake(MailboxEngine.name),
        )
        self.operations = Operations(self.db, self.clock, self.supervisor)
        self.recorder = Recorder(self._template_of)
        self.metrics = Metrics(
            self.recorder,
            Siblings(settings.home / "workers"),
            self.supervisor,
            self.clock,
            gauges=self._gauges,
            statuses=self.workspaces.count_by_status,
            token=settings.metrics_token,
        )
        self.buckets = Buckets()
        self.litestar = self._litestar()
        inner = FastBeats(self.litestar, self.identities, self.beats)
        self.app: ASGIApp = self.front(SocketsFirst(self._socket_endpoint(), inner))

    async def start(self, *, engines: bool = True) -> None:
        """Connect; with `engines` also start what runs in the background."""
        await self.db.open()
        await self.agents.open()
        self.identities.accept_bootstrap(bootstrap_token(self.settings))
        self.buckets.share(self.settings.home / "workers")
        if engines:
            self.supervisor.run("metrics", self.metrics.run)
            self.supervisor.run("broadcaster", self.relay.run)
            self.supervisor.run("hub", self.hub.run)
            self.supervisor.run("notifications", self.notifications.run)
            self.supervisor.run("token-usage", self.identities.run)
            self._start_retention()
            self._start_lifecycle()
            self._start_messages()
            self._start_clocks()

    def _start_retention(self) -> None:
        settings = self.settings
        hours = settings.activity_cleanup_interval_hours
        self.supervisor.add(BusSweeper(self.db))
        self.supervisor.add(
            EventRetention(self.db, self.clock, days=settings.events_retention_days, interval_hours=hours)
        )
        self.supervisor.add(
            ActivityRetention(
                self.db,
                self.clock,
                chat_days=settings.chat_retention_days,
                other_days=settings.activity_retention_days,
                interval_hours=hours,
            )
        )

    def _start_messages(self) -> None:
        engine = MailboxEngine(
            self.db,
            self.mailbox,
            self.traffic,
            self.couriers,
            self.sleepers,
            self.clock,
            self.ids,
            retention_days=self.settings.activity_retention_days,
            wake=lambda: self.supervisor.wake(MailboxEngine.name),
        )
        self.notifications.on(MAILBOX, engine.hear)
        self.notifications.on_gap(engine.look_at_all)
        self.supervisor.add(engine)
        self.supervisor.add(LeaseKeeper(self.couriers))
        self.supervisor.add(TrafficKeeper(self.traffic))
        self.supervisor.add(DelegationSweeper(self.delegations, retention_days=30))

    def _start_lifecycle(self) -> None:
        settings, supervisor = self.settings, self.supervisor
        self.notifications.on(RECONCILE, lambda _: supervisor.wake(Reconciler.name))
        self.notifications.on_gap(lambda: supervisor.wake(Reconciler.name))
        supervisor.add(self.reconciler)
        supervisor.add(HealthSweep(self.db, self.provisioner, self.losses))
        supervisor.add(OrphanSweeper(self.db, self.provisioner))
        supervisor.add(
            Liveness(
                self.db,
                self.losses,
                self.clock,
                managed=timedelta(seconds=settings.liveness_ttl_seconds),
                external=timedelta(seconds=settings.remote_liveness_stale_after),
            )
        )
        supervisor.add(
            ProvisionTimeouts(
                self.db,
                self.losses,
                self.boot_log.tail,
                override=timedelta(seconds=settings.provision_timeout_seconds),
            )
        )
        supervisor.add(
            HibernationMonitor(
                self.db, self.lifecycle, interval_seconds=float(settings.hibernation_check_seconds)
            )
        )

    def _start_clocks(self) -> None:
        self.notifications.on(SCHEDULES_CHANGED, lambda _: self.supervisor.wake(Scheduler.name))
        self.notifications.on_gap(lambda: self.supervisor.wake(Scheduler.name))
        self.supervisor.add(Scheduler(self.db, self.ledger, now=database_now))
        self.supervisor.add(
            RunReaper(
                self.db,
                self.ledger,
                now=database_now,
                retention=_days(self.settings.events_retention_days),
            )
        )
        self.supervisor.add(ApprovalExpiry(self.approvals))

    def leave(self) -> None:
        """Begin to go away: no longer ready, sockets and streams end. Safe to call twice."""
        self.operations.stopping = True
        self.hub.close_all()

    async def stop(self) -> None:
        """Stop engines, write what was deferred, disconnect."""
        self.leave()
        await self.supervisor.stop()
        await self.couriers.stop()
        await self.proxy.drain()
        await self.agents.close()
        await self.reconciler.stop()
        await self.provisioner.close()
        await self.identities.flush()
        await self.db.close()

    def front(self, app: ASGIApp) -> ASGIApp:
        """The edge around the application (contract 01 §1.1)."""
        settings = self.settings
        return Front(
            app,
            cors=Cors(settings.origins),
            limiter=Limiter(self.buckets, settings.requests_per_minute),
            tenant=TenantGuard(
                settings.molecule_org_id,
                settings.molecule_org_slug,
                has_canvas=bool(settings.canvas_proxy_url),
            ),
            recorder=self.recorder,
            proxies=parse_networks(settings.trusted_proxies),
        )

    def _template_of(self, path: str, method: str) -> str:
        """The pattern of the route that would have answered, "" when there is none."""
        try:
            return str(self.litestar.asgi_router.handle_routing(path, method)[4])
        except HTTPException:
            return ""

    def _gauges(self) -> dict[str, float]:
        return {
            "molecule_websocket_connections_active": float(self.hub.sockets),
            "molecule_event_streams_active": float(self.hub.streams),
            "molecule_db_pool_in_use": float(self.db.in_use),
        }

    def _socket_endpoint(self) -> SocketEndpoint:
        return SocketEndpoint(
            self.db,
            self.hub,
            self.relay,
            self.tree,
            self.gatekeeper,
            self.tickets,
            origins=self.settings.origins,
            limit=self.settings.websocket_limit,
            clock=self.clock,
        )

    def _litestar(self) -> Litestar:
        return Litestar(
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
            ],
            dependencies={
                name: Provide(_always(service), sync_to_thread=False)
                for name, service in {
                    "settings": self.settings,
                    "events": self.events,
                    "history": self.history,
                    "streams": self.streams,
                    "tickets": self.tickets,
                    "operations": self.operations,
                    "metrics": self.metrics,
                    "tokens": self.tokens,
                    "activity": self.activity,
                    "registry": self.registry,
                    "beats": self.beats,
                    "schedules": self.schedules,
                    "approvals": self.approvals,
                    "proxy": self.proxy,
                    "mailbox": self.mailbox,
                    "delegations": self.delegations,
                    "secrets": self.secrets,
                    "workspaces": self.workspaces,
                    "editing": self.editing,
                    "configuration": self.configuration,
                    "models": self.models,
                    "teams": self.teams,
                    "lifecycle": self.lifecycle,
                    "boot_log": self.boot_log,
                    "orgs": self.orgs,
                }.items()
            }
            | {
                "caller": Provide(_caller, sync_to_thread=False),
                "address": Provide(_address, sync_to_thread=False),
            },
            guards=[self.gatekeeper.guard],
            exception_handlers=EXCEPTION_HANDLERS,
            request_class=ApiRequest,
            request_max_body_size=self.settings.max_body_bytes,
            openapi_config=openapi.config(__version__),
            debug=False,
            logging_config=None,
        )


def _provisioner(settings: Settings) -> Provisioner:
    match settings.backend:
        case "none":
            return NoProvisioner()
        case "process":
            return ProcessProvisioner(
                settings.home,
                settings.agent_platform_url,
                preload=preload,
                orphan_timeout=timedelta(seconds=settings.agent_orphan_timeout),
            )
        case other:
            raise BadSetting(f"PROVISIONER {other} is not part of this build")


def _limits(settings: Settings) -> Limits:
    return Limits(
        depth=settings.chain_max_depth,
        hops=settings.chain_max_hops,
        visits=settings.chain_max_visits,
        fan_out=settings.chain_max_fan_out,
        pair_per_minute=settings.chain_pair_rate,
    )


def _days(count: int) -> timedelta | None:
    return timedelta(days=count) if count else None


def _always(service: Any) -> Callable[[], Any]:
    return lambda: service


def _caller(scope: Scope) -> Principal:
    principal: Principal = scope["state"]["principal"]
    return principal


def _address(scope: Scope) -> str:
    """The client's address, as the edge resolved it."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def create() -> ASGIApp:
    """The factory that each worker process calls."""
    end_with_parent()
    settings = read()
    log.configure(level=settings.log_level)
    server = Server(settings)
    return Lifespan(server)


class Lifespan:
    """Answers the ASGI lifespan with the server's start and stop; passes everything else on."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self._server.app(scope, receive, send)
            return
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                farewell = Farewell(self._server.leave, self._server.hub.is_empty)
                try:
                    await self._server.start()
                except Exception as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
                await send({"type": "lifespan.startup.complete"})
                farewell.arm()
            else:
                await self._server.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


@asynccontextmanager
async def running(server: Server, *, engines: bool) -> AsyncIterator[Server]:
    """A started server, stopped at the end: for tests and tools."""
    await server.start(engines=engines)
    try:
        yield server
    finally:
        await server.stop()
