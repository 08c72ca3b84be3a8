"""The one list of rooms and adapters: what each is made of; only here are they built."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path

from molecule_ai.kernel.clock import Clock, Ids, RandomIds, SystemClock
from molecule_ai.kernel.db import Database
from molecule_ai.kernel.db import now as database_now
from molecule_ai.kernel.engine import Supervisor
from molecule_ai.kernel.notify import Notifications
from molecule_ai.provisioners.base import Provisioner
from molecule_ai.provisioners.environment import REQUIRE_INBOUND
from molecule_ai.provisioners.none import NoProvisioner
from molecule_ai.provisioners.process import ProcessProvisioner
from molecule_ai.runtime.preload import preload

from .a2a.aftermath import Aftermath
from .a2a.agents import Agents
from .a2a.passes import Passes
from .a2a.queueing import Queueing
from .a2a.service import Proxy
from .a2a.transcripts import Transcripts
from .a2a.waking import Sleepers
from .activity.service import Activity
from .approvals.service import Approvals
from .approvals.service import Policy as ApprovalPolicy
from .auth.gatekeeper import Gatekeeper
from .auth.identities import Identities
from .auth.sessions import Sessions
from .canvas.service import Canvas
from .delegations.log import DelegationLog
from .delegations.service import Delegations
from .edge.buckets import Buckets
from .edge.recorder import Recorder, Siblings
from .edge.upstream import Upstream
from .environment import passthrough
from .events.audit import AuditLog
from .events.history import History
from .events.hub import Hub
from .events.relay import Relay
from .events.service import Events
from .events.streams import Streams
from .events.tickets import Tickets
from .images.service import Images
from .mailbox.chain import Limits
from .mailbox.couriers import Couriers
from .mailbox.engine import MailboxEngine
from .mailbox.service import Mailbox
from .operations.metrics import Metrics
from .operations.service import Operations
from .orgs.catalog import Catalog, bundled
from .orgs.plan import Planner
from .orgs.service import Orgs
from .orgs.trees import Trees
from .registry.beats import Beats
from .registry.service import Registry
from .schedules.delivery import REPLY_KIND as SCHEDULE_RUN
from .schedules.ledger import Ledger, rules_of
from .schedules.messages import MailboxDelivery
from .schedules.service import Schedules
from .secrets.keys import keyring
from .secrets.service import Secrets
from .settings import BadSetting, Settings
from .tokens.service import Tokens
from .traffic.service import Traffic
from .workspaces.arrivals import Arrivals
from .workspaces.boot_log import BootLog
from .workspaces.broadcasts import Broadcasts
from .workspaces.configuration import Configuration
from .workspaces.creation import Creation
from .workspaces.editing import Editing
from .workspaces.inbound import InboundSecrets
from .workspaces.launches import Launches
from .workspaces.lifecycle import Lifecycle
from .workspaces.losses import Losses
from .workspaces.models import Models
from .workspaces.reconciler import Reconciler
from .workspaces.relaunch import Relaunch
from .workspaces.resolution import Resolver
from .workspaces.restart_note import Notes
from .workspaces.service import Workspaces
from .workspaces.teams import Teams
from .workspaces.templates import Templates
from .workspaces.timeouts import Timeouts
from .workspaces.tree import Tree


class Rooms:
    """All rooms of one replica, connected with each other; nothing runs yet."""

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
        self.provisioner = provisioner or _provisioner(settings)
        self._build_foundation()
        self._build_events()
        self._build_registry()
        self._build_messages()
        self._build_clocks()
        self._build_workspaces()
        self._build_lifecycle()
        self._build_orgs()
        self._build_proxy()
        self._build_operations()

    def _build_foundation(self) -> None:
        """What every room stands on: the database, who is calling, what happened."""
        settings = self.settings
        self.db = Database(settings.database_url, max_connections=settings.pool_size)
        self.supervisor = Supervisor(self.clock)
        self.notifications = Notifications(self.db)
        self.identities = Identities(self.db, settings)
        self.sessions = Sessions(settings.cp_upstream_url, settings.molecule_org_slug)
        self.gatekeeper = Gatekeeper(self.identities, self.sessions, settings)
        self.audit_log = AuditLog(settings.audit_file)
        self.events = Events(self.db, self.clock, self.audit_log)
        self.tree = Tree(self.db)
        self.base_url = (settings.external_platform_url or settings.agent_platform_url).rstrip("/")

    def _build_events(self) -> None:
        """How events reach clients, and the credentials that open their sockets."""
        self.tokens = Tokens(self.db, self.events, self.ids)
        self.hub = Hub(self.tree, self.tokens.dead)
        self.relay = Relay(self.db, self.notifications, self.hub.deliver, self.hub.is_empty, self.clock)
        self.history = History(self.db)
        self.canvas = Canvas(self.db)
        self.tickets = Tickets(self.db, self.events, self.tokens.dead)
        self.gatekeeper.redeem = self.tickets.redeem
        self.streams = Streams(self.db, self.hub, self.relay)
        self.activity = Activity(
            self.db, self.events, self.clock, self.ids, self.streams, base_url=self.base_url
        )

    def _build_registry(self) -> None:
        """What agents say of themselves."""
        settings = self.settings
        self.arrivals = Arrivals()
        self.starts_agents = settings.backend != "none"
        self.traffic = Traffic(self.db, self.events, self.ids, _limits(settings))
        self.beats = Beats(
            self.db, self.events, self.arrivals, self.traffic, starts_agents=self.starts_agents
        )
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

    def _build_messages(self) -> None:
        """What makes agents act."""
        self.mailbox = Mailbox(self.db, self.events, self.traffic, self.activity, self.clock, self.ids)
        self.delegations = Delegations(
            self.db,
            self.events,
            self.mailbox,
            self.traffic,
            DelegationLog(self.activity, inbox_push=self.settings.delegation_result_inbox_push),
            self.ids,
            key_window=timedelta(seconds=self.settings.delegation_idempotency_window_seconds),
        )

    def _build_clocks(self) -> None:
        """What waits for a time or for a person."""
        settings = self.settings
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

    def _build_workspaces(self) -> None:
        """The rows and what they hold."""
        settings = self.settings
        self.secrets = Secrets(self.db, self.keyring, self.events)
        for room in (self.events, self.activity, self.beats, self.registry):
            room.cleaner = self.secrets.redaction
        self.templates = Templates(Path(settings.configs_dir) if settings.configs_dir else None)
        self.resolver = Resolver(self.templates)
        self.creation = Creation(self.ids, self.resolver, settings.url_policy, has_backend=self.starts_agents)
        self.timeouts = Timeouts(self.templates)
        self.workspaces = Workspaces(
            self.db, self.events, self.secrets, self.tokens, self.creation, self.timeouts
        )
        self.editing = Editing(
            self.db,
            self.events,
            self.resolver,
            self_patch_sensitive=settings.workspace_self_patch_sensitive and not settings.saas,
        )

    def _build_lifecycle(self) -> None:
        """How observed follows desired."""
        settings = self.settings
        self.boot_log = BootLog(self.provisioner, self.secrets)
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
            Relaunch(self.templates),
            has_backend=self.starts_agents,
            confirms_deletes=settings.workspace_delete_confirm == "strict",
        )
        self.lifecycle.cleaner = self.secrets.redaction
        self.lifecycle.on_removed(self.schedules.disable_for)
        self.secrets.restarts = self.lifecycle
        self.lifecycle.on_removed(self.mailbox.target_removed)
        self.lifecycle.on_removed(self.approvals.requester_removed)
        self.models = Models(self.db, self.events, self.secrets, self.lifecycle, self.resolver)
        self.configuration = Configuration(self.db, self.events, self.tokens, self.workspaces)
        self.broadcasts = Broadcasts(self.db, self.events, self.activity)
        self.teams = Teams(
            self.db, self.events, self.workspaces, self.creation, self.lifecycle, self.provisioner
        )
        notes = Notes(self.secrets, self.mailbox)
        self.arrivals.on_online(notes.agent_online)
        self.images = Images(
            self.db,
            self.events,
            self.lifecycle,
            getattr(self.provisioner, "images", None),
            node=self.provisioner.node,
            home=settings.home,
        )
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
                platform_env={REQUIRE_INBOUND: "true"} if settings.a2a_require_inbound_secret else {},
            ),
            self.losses,
            notes,
            self.inbound,
            self.ids,
            has_backend=self.starts_agents,
            concurrency=settings.provision_concurrency,
            wake=lambda: self.supervisor.wake(Reconciler.name),
        )

    def _build_orgs(self) -> None:
        """Whole organizations from documents."""
        settings = self.settings
        allowed = passthrough(settings.org_import_env_passthrough)
        self.orgs = Orgs(
            self.db,
            self.events,
            self.ids,
            self.secrets,
            self.creation,
            Catalog(Path(settings.org_templates_dir) if settings.org_templates_dir else bundled()),
            Trees(self.workspaces, self.schedules, self.approvals, self.ids),
            planner=lambda root: Planner(self.templates, self.resolver, allowed, root),
        )

    def _build_proxy(self) -> None:
        """How a message reaches an agent."""
        settings = self.settings
        self.agents = Agents(
            settings.url_policy,
            self.traffic,
            self.losses,
            Passes(self.db, self.inbound),
            idle_seconds=float(settings.a2a_idle_timeout_seconds),
        )
        self.transcripts = Transcripts(self.traffic, self.agents)
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

    def _build_operations(self) -> None:
        """How the server is watched."""
        settings = self.settings
        self.operations = Operations(self.db, self.clock, self.supervisor)
        self.recorder = Recorder()
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
        self.control_plane = Upstream(
            settings.cp_upstream_url,
            unavailable="control plane unavailable",
            total_seconds=30.0,
            max_body_bytes=settings.max_body_bytes,
        )
        self.canvas_upstream = Upstream(
            settings.canvas_proxy_url,
            unavailable="canvas unavailable",
            total_seconds=None,
            max_body_bytes=settings.max_body_bytes,
        )

    def _gauges(self) -> dict[str, float]:
        return {
            "molecule_websocket_connections_active": float(self.hub.sockets),
            "molecule_event_streams_active": float(self.hub.streams),
            "molecule_db_pool_in_use": float(self.db.in_use),
        }


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
                memory_mb_by_tier=settings.memory_mb_by_tier,
            )
        case "docker":
            # Nobody else has to load its client library.
            from molecule_ai.provisioners.docker.provisioner import DockerProvisioner

            from .images.configured import docker_options

            return DockerProvisioner(settings.home, settings.agent_platform_url, docker_options(settings))
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
