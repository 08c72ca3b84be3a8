-- Prompts at a time, and what became of every time (contract 03 §18).
CREATE TABLE IF NOT EXISTS workspace_schedules (
    id                     uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id           uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    name                   text NOT NULL DEFAULT '',
    cron_expr              text NOT NULL,
    timezone               text NOT NULL DEFAULT 'UTC',
    prompt                 text NOT NULL,
    enabled                boolean NOT NULL DEFAULT true,
    last_run_at            timestamptz,
    next_run_at            timestamptz,
    run_count              int NOT NULL DEFAULT 0,
    last_status            text NOT NULL DEFAULT '',
    last_error             text NOT NULL DEFAULT '',
    source                 text NOT NULL DEFAULT 'runtime' CHECK (source IN ('template', 'runtime')),
    -- Columns of a template row that somebody edited: a later import leaves them alone.
    user_modified          text[] NOT NULL DEFAULT '{}',
    consecutive_empty_runs int NOT NULL DEFAULT 0,
    -- Held ticks in a row that lost their place to the next one.
    lost_slots             int NOT NULL DEFAULT 0,
    last_success_at        timestamptz,
    last_duration_ms       int,
    timeout_seconds        int CHECK (timeout_seconds > 0),
    -- Since when no slot fires although the row is there: what explains the slots of that time.
    disabled_since         timestamptz,
    version                int NOT NULL DEFAULT 1,
    created_at             timestamptz NOT NULL DEFAULT now(),
    updated_at             timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS workspace_schedules_workspace_idx ON workspace_schedules (workspace_id, created_at, id);
CREATE INDEX IF NOT EXISTS workspace_schedules_due_idx ON workspace_schedules (next_run_at) WHERE enabled;
CREATE UNIQUE INDEX IF NOT EXISTS workspace_schedules_name_uniq ON workspace_schedules (workspace_id, name)
    WHERE name <> '';

-- The ledger: one row per due instant, and one per run that somebody asked for. It outlives the schedule.
CREATE TABLE IF NOT EXISTS schedule_runs (
    id             uuid PRIMARY KEY,
    schedule_id    uuid NOT NULL,
    workspace_id   uuid NOT NULL,
    trigger        text NOT NULL CHECK (trigger IN ('cron', 'manual', 'webhook', 'catchup')),
    scheduled_for  timestamptz NOT NULL,
    -- coalesced: an older slot that the run of a newer one stands for; inactive: the schedule was off.
    status         text NOT NULL CHECK (status IN
                       ('queued', 'running', 'ok', 'stale', 'error', 'skipped', 'coalesced', 'inactive')),
    reason         text NOT NULL DEFAULT '',
    -- A row for many slots: all from here to scheduled_for.
    covers_since   timestamptz,
    late_ms        bigint NOT NULL DEFAULT 0,
    attempt        int NOT NULL DEFAULT 1,
    claimed_by     text NOT NULL DEFAULT '',
    lease_until    timestamptz,
    recorded_at    timestamptz NOT NULL DEFAULT now(),
    started_at     timestamptz,
    finished_at    timestamptz,
    duration_ms    int,
    error_detail   text NOT NULL DEFAULT '',
    output_preview text NOT NULL DEFAULT '',
    request        jsonb NOT NULL DEFAULT '{}'
);
CREATE UNIQUE INDEX IF NOT EXISTS schedule_runs_trigger_slot_uniq
    ON schedule_runs (schedule_id, trigger, scheduled_for);
-- Late or not, a slot is one slot.
CREATE UNIQUE INDEX IF NOT EXISTS schedule_runs_slot_uniq ON schedule_runs (schedule_id, scheduled_for)
    WHERE trigger IN ('cron', 'catchup');
CREATE INDEX IF NOT EXISTS schedule_runs_history_idx ON schedule_runs (schedule_id, scheduled_for DESC);
CREATE INDEX IF NOT EXISTS schedule_runs_open_idx ON schedule_runs (schedule_id) WHERE status IN ('queued', 'running');
CREATE INDEX IF NOT EXISTS schedule_runs_lease_idx ON schedule_runs (lease_until) WHERE status = 'running';
CREATE INDEX IF NOT EXISTS schedule_runs_recorded_idx ON schedule_runs (recorded_at);
