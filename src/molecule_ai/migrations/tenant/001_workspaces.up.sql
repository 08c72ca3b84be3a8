-- The org chart: one row per durable agent role (contract 02 §2).
DO $$ BEGIN
    CREATE TYPE workspace_status AS ENUM ('provisioning', 'online', 'degraded', 'offline', 'failed', 'paused',
        'hibernating', 'hibernated', 'awaiting_agent', 'removed');
EXCEPTION WHEN duplicate_object THEN NULL; END $$;

CREATE TABLE IF NOT EXISTS workspaces (
    id                       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name                     text NOT NULL,
    role                     text,
    tier                     int NOT NULL DEFAULT 1 CHECK (tier BETWEEN 1 AND 4),
    status                   workspace_status NOT NULL DEFAULT 'provisioning',
    kind                     text NOT NULL DEFAULT 'workspace' CHECK (kind IN ('workspace', 'platform')),
    runtime                  text NOT NULL DEFAULT 'langgraph',
    model                    text,
    delivery_mode            text NOT NULL DEFAULT 'push' CHECK (delivery_mode IN ('push', 'poll')),
    source_bundle_id         text,
    source_template          text,
    template                 text,
    agent_card               jsonb,
    url                      text NOT NULL DEFAULT '',
    parent_id                uuid REFERENCES workspaces (id),
    forwarded_to             uuid REFERENCES workspaces (id),
    workspace_dir            text,
    workspace_access         text NOT NULL DEFAULT 'none' CHECK (workspace_access IN ('none', 'read_only', 'read_write')),
    awareness_namespace      text,
    active_tasks             int NOT NULL DEFAULT 0,
    max_concurrent_tasks     int NOT NULL DEFAULT 1 CHECK (max_concurrent_tasks >= 1),
    current_task             text NOT NULL DEFAULT '',
    idle_since               timestamptz,
    last_heartbeat_at        timestamptz,
    last_outbound_at         timestamptz,
    last_error_rate          double precision NOT NULL DEFAULT 0,
    last_sample_error        text NOT NULL DEFAULT '',
    uptime_seconds           int NOT NULL DEFAULT 0,
    capabilities             jsonb NOT NULL DEFAULT '{}',
    idle_timeout_seconds     int,
    budget_limit             bigint,
    monthly_spend            bigint NOT NULL DEFAULT 0,
    hibernation_idle_minutes int,
    instance_id              text,
    platform_inbound_secret  bytea,
    broadcast_enabled        boolean NOT NULL DEFAULT false,
    talk_to_user_enabled     boolean NOT NULL DEFAULT true,
    -- What the reconciler drives: the wish, its generation, and what was last made of it.
    desired                  text NOT NULL DEFAULT 'run' CHECK (desired IN ('run', 'pause', 'hibernate', 'remove', 'none')),
    generation               bigint NOT NULL DEFAULT 1,
    observed_generation      bigint NOT NULL DEFAULT 0,
    handle                   jsonb,
    launch_files             jsonb NOT NULL DEFAULT '{}',
    node                     text,
    reconcile_after          timestamptz NOT NULL DEFAULT now(),
    lease_owner              uuid,
    lease_until              timestamptz,
    restart_attempts         int NOT NULL DEFAULT 0,
    restart_window_at        timestamptz,
    registered_at            timestamptz,
    paused_by                uuid,
    status_reason            text NOT NULL DEFAULT '',
    status_changed_at        timestamptz NOT NULL DEFAULT now(),
    removed_at               timestamptz,
    purge                    boolean NOT NULL DEFAULT false,
    created_at               timestamptz NOT NULL DEFAULT now(),
    updated_at               timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT workspaces_not_own_parent CHECK (id <> parent_id),
    CONSTRAINT workspaces_platform_is_root CHECK (kind <> 'platform' OR parent_id IS NULL)
);
-- Every heartbeat updates its row. No index names a column that a heartbeat writes, and each page keeps
-- room for the next version of its rows, so that a beat touches neither an index nor another page.
ALTER TABLE workspaces SET (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX IF NOT EXISTS workspaces_parent_idx ON workspaces (parent_id);
CREATE INDEX IF NOT EXISTS workspaces_status_idx ON workspaces (status);
CREATE INDEX IF NOT EXISTS workspaces_created_idx ON workspaces (created_at, id) WHERE status <> 'removed';
CREATE INDEX IF NOT EXISTS workspaces_hibernation_idx ON workspaces (hibernation_idle_minutes)
    WHERE hibernation_idle_minutes IS NOT NULL;
CREATE INDEX IF NOT EXISTS workspaces_instance_idx ON workspaces (instance_id) WHERE instance_id IS NOT NULL;
-- Rows that wait for the reconciler: a wish not yet made true.
CREATE INDEX IF NOT EXISTS workspaces_reconcile_idx ON workspaces (reconcile_after)
    WHERE generation <> observed_generation;
CREATE UNIQUE INDEX IF NOT EXISTS workspaces_parent_name_uniq
    ON workspaces (COALESCE(parent_id, '00000000-0000-0000-0000-000000000000'), name) WHERE status <> 'removed';
CREATE UNIQUE INDEX IF NOT EXISTS workspaces_one_platform ON workspaces (kind)
    WHERE kind = 'platform' AND status <> 'removed';

CREATE TABLE IF NOT EXISTS canvas_layouts (
    workspace_id uuid PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
    x            double precision NOT NULL DEFAULT 0,
    y            double precision NOT NULL DEFAULT 0,
    collapsed    boolean NOT NULL DEFAULT false
);
