"""Which engines run in every process."""

from __future__ import annotations

from datetime import timedelta

from molecule_ai.kernel.db import now as database_now

from .activity.retention import ActivityRetention
from .approvals.expiry import ApprovalExpiry
from .delegations.engine import DelegationSweeper
from .events.retention import BusSweeper, EventRetention
from .images.service import ImageRefresher
from .mailbox.engine import CHANNEL as MAILBOX
from .mailbox.engine import LeaseKeeper, MailboxEngine
from .rooms import Rooms
from .schedules.scheduler import RunReaper, Scheduler
from .schedules.service import CHANNEL as SCHEDULES_CHANGED
from .secrets.redaction import CHANNEL as SECRETS_CHANGED
from .traffic.engine import TrafficKeeper
from .workspaces.deaths import Deaths, announces
from .workspaces.lifecycle import RECONCILE
from .workspaces.liveness import HibernationMonitor, Liveness, ProvisionTimeouts
from .workspaces.reconciler import Reconciler
from .workspaces.sweeper import HealthSweep, OrphanSweeper, Warmth


def start(rooms: Rooms) -> None:
    """Start everything that runs in the background of one replica."""
    supervisor = rooms.supervisor
    rooms.audit_log.start()
    supervisor.run("metrics", rooms.metrics.run)
    supervisor.run("broadcaster", rooms.relay.run)
    supervisor.run("hub", rooms.hub.run)
    supervisor.run("notifications", rooms.notifications.run)
    supervisor.run("token-usage", rooms.identities.run)
    if rooms.sessions.is_enabled:
        supervisor.add(rooms.sessions)
    _start_retention(rooms)
    _start_lifecycle(rooms)
    _start_messages(rooms)
    _start_clocks(rooms)


def _start_retention(rooms: Rooms) -> None:
    settings = rooms.settings
    hours = settings.activity_cleanup_interval_hours
    rooms.supervisor.add(BusSweeper(rooms.db))
    rooms.supervisor.add(
        EventRetention(rooms.db, rooms.clock, days=settings.events_retention_days, interval_hours=hours)
    )
    rooms.supervisor.add(
        ActivityRetention(
            rooms.db,
            rooms.clock,
            chat_days=settings.chat_retention_days,
            other_days=settings.activity_retention_days,
            interval_hours=hours,
        )
    )


def _start_messages(rooms: Rooms) -> None:
    engine = MailboxEngine(
        rooms.db,
        rooms.mailbox,
        rooms.traffic,
        rooms.couriers,
        rooms.sleepers,
        rooms.clock,
        rooms.ids,
        retention_days=rooms.settings.activity_retention_days,
        wake=lambda: rooms.supervisor.wake(MailboxEngine.name),
    )
    rooms.notifications.on(MAILBOX, engine.hear)
    rooms.notifications.on_gap(engine.look_at_all)
    rooms.supervisor.add(engine)
    rooms.supervisor.add(LeaseKeeper(rooms.couriers))
    rooms.supervisor.add(TrafficKeeper(rooms.traffic))
    rooms.supervisor.add(DelegationSweeper(rooms.delegations, retention_days=30))


def _start_lifecycle(rooms: Rooms) -> None:
    settings, supervisor = rooms.settings, rooms.supervisor
    rooms.notifications.on(SECRETS_CHANGED, rooms.secrets.redaction.forget)
    rooms.notifications.on_gap(rooms.secrets.redaction.forget)
    rooms.notifications.on(RECONCILE, lambda _: supervisor.wake(Reconciler.name))
    # Any worker may start the next agent: all prepare for the runtime of the first one.
    rooms.notifications.on(RECONCILE, lambda _: supervisor.wake(Warmth.name))
    rooms.notifications.on_gap(lambda: supervisor.wake(Reconciler.name))
    supervisor.add(rooms.reconciler)
    supervisor.add(HealthSweep(rooms.db, rooms.provisioner, rooms.losses))
    if announces(rooms.provisioner):
        deaths = Deaths(rooms.provisioner, lambda: supervisor.wake(HealthSweep.name))
        supervisor.run("container-deaths", deaths.run)
    if settings.image_auto_refresh and settings.backend == "docker":
        supervisor.add(ImageRefresher(rooms.images))
    supervisor.add(OrphanSweeper(rooms.db, rooms.provisioner))
    supervisor.add(Warmth(rooms.db, rooms.provisioner))
    supervisor.add(
        Liveness(
            rooms.db,
            rooms.losses,
            rooms.clock,
            managed=timedelta(seconds=settings.liveness_ttl_seconds),
            external=timedelta(seconds=settings.remote_liveness_stale_after),
        )
    )
    supervisor.add(
        ProvisionTimeouts(
            rooms.db,
            rooms.losses,
            rooms.boot_log.tail,
            rooms.timeouts,
            override=timedelta(seconds=settings.provision_timeout_seconds),
        )
    )
    supervisor.add(
        HibernationMonitor(
            rooms.db, rooms.lifecycle, interval_seconds=float(settings.hibernation_check_seconds)
        )
    )


def _start_clocks(rooms: Rooms) -> None:
    rooms.notifications.on(SCHEDULES_CHANGED, lambda _: rooms.supervisor.wake(Scheduler.name))
    rooms.notifications.on_gap(lambda: rooms.supervisor.wake(Scheduler.name))
    rooms.supervisor.add(Scheduler(rooms.db, rooms.ledger, now=database_now))
    rooms.supervisor.add(
        RunReaper(
            rooms.db,
            rooms.ledger,
            now=database_now,
            retention=_days(rooms.settings.events_retention_days),
        )
    )
    rooms.supervisor.add(ApprovalExpiry(rooms.approvals))


def _days(count: int) -> timedelta | None:
    return timedelta(days=count) if count else None
