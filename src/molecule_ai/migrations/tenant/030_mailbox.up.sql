-- The mailbox: everything that makes an agent act, until its answer is recorded (contract 05 §1.2, §2).
CREATE TABLE IF NOT EXISTS mailbox_messages (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id       uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    caller_id          uuid,
    source_kind        text NOT NULL CHECK (source_kind IN ('canvas', 'agent', 'scheduler', 'channel', 'webhook', 'system')),
    source_label       text NOT NULL DEFAULT '',
    priority           smallint NOT NULL DEFAULT 50,
    method             text NOT NULL DEFAULT '',
    body               jsonb NOT NULL,
    idempotency_key    text NOT NULL,
    status             text NOT NULL DEFAULT 'queued'
                       CHECK (status IN ('queued', 'dispatched', 'completed', 'failed', 'dropped')),
    not_before         timestamptz NOT NULL DEFAULT now(),
    expires_at         timestamptz,
    -- Who is told when the row is settled, in the transaction that settles it.
    reply_kind         text NOT NULL DEFAULT 'none',
    reply_id           text NOT NULL DEFAULT '',
    is_budget_fatal    boolean NOT NULL DEFAULT false,
    timeout_seconds    int,
    -- The causal chain: root, the message that caused this one, and the way so far.
    chain_id           uuid NOT NULL,
    parent_id          text NOT NULL DEFAULT '',
    depth              int NOT NULL DEFAULT 0,
    hops               int NOT NULL DEFAULT 0,
    path               uuid[] NOT NULL DEFAULT '{}',
    attempts           int NOT NULL DEFAULT 0,
    lease_owner        uuid,
    lease_until        timestamptz,
    delivery_uncertain boolean NOT NULL DEFAULT false,
    response_body      jsonb,
    last_error         text,
    enqueued_at        timestamptz NOT NULL DEFAULT now(),
    dispatched_at      timestamptz,
    completed_at       timestamptz
);
-- The race of two equal messages is decided here.
CREATE UNIQUE INDEX IF NOT EXISTS mailbox_active_key_uniq ON mailbox_messages (workspace_id, idempotency_key)
    WHERE status IN ('queued', 'dispatched');
CREATE INDEX IF NOT EXISTS mailbox_queue_idx ON mailbox_messages (workspace_id, priority DESC, enqueued_at, id)
    WHERE status = 'queued';
CREATE INDEX IF NOT EXISTS mailbox_not_before_idx ON mailbox_messages (not_before) WHERE status = 'queued';
CREATE INDEX IF NOT EXISTS mailbox_expires_idx ON mailbox_messages (expires_at)
    WHERE status = 'queued' AND expires_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS mailbox_lease_idx ON mailbox_messages (lease_until) WHERE status = 'dispatched';
CREATE INDEX IF NOT EXISTS mailbox_reply_idx ON mailbox_messages (reply_kind, reply_id)
    WHERE status IN ('queued', 'dispatched');
CREATE INDEX IF NOT EXISTS mailbox_chain_idx ON mailbox_messages (chain_id) WHERE status IN ('queued', 'dispatched');
CREATE INDEX IF NOT EXISTS mailbox_completed_idx ON mailbox_messages (completed_at) WHERE completed_at IS NOT NULL;

-- One row per task that the platform has under way at a workspace: the primary key is what keeps two
-- replicas within max_concurrent_tasks. Rows are reused, never deleted; nothing here outlives a crash of
-- the database that has to.
CREATE UNLOGGED TABLE IF NOT EXISTS workspace_slots (
    workspace_id uuid NOT NULL,
    slot         int NOT NULL,
    holder       uuid NOT NULL,
    message_id   text NOT NULL,
    chain_id     uuid NOT NULL,
    depth        int NOT NULL,
    hops         int NOT NULL,
    path         uuid[] NOT NULL,
    children     int NOT NULL DEFAULT 0,
    since        timestamptz NOT NULL,
    until        timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, slot)
) WITH (fillfactor = 50);

-- How busy a workspace is: what the platform has under way there, and what the agent reported besides. A
-- reported task that was one of ours counts once, and no longer than ours lasts; a report older than three
-- heartbeats counts no more.
CREATE OR REPLACE VIEW workspace_load AS
SELECT w.id AS workspace_id, w.max_concurrent_tasks,
       s.live + GREATEST(0,
           CASE WHEN w.last_heartbeat_at > now() - interval '90 seconds' THEN w.active_tasks ELSE 0 END
           - s.reported)::int AS load
  FROM workspaces w
 CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE until > now())::int AS live,
              count(*) FILTER (WHERE since <= w.last_heartbeat_at
                                 AND until >= w.last_heartbeat_at - interval '2 seconds')::int AS reported
         FROM workspace_slots WHERE workspace_id = w.id) s;

-- Messages of one agent to another in the current minute.
CREATE UNLOGGED TABLE IF NOT EXISTS message_pairs (
    caller_id uuid NOT NULL,
    target_id uuid NOT NULL,
    minute_at timestamptz NOT NULL,
    messages  int NOT NULL,
    PRIMARY KEY (caller_id, target_id)
) WITH (fillfactor = 50);

-- Chains that were refused something (told of once) or stopped altogether.
CREATE TABLE IF NOT EXISTS message_chains (
    chain_id   uuid PRIMARY KEY,
    reason     text NOT NULL,
    noticed_at timestamptz NOT NULL DEFAULT now(),
    stopped_at timestamptz,
    stopped_by text
);
CREATE INDEX IF NOT EXISTS message_chains_noticed_idx ON message_chains (noticed_at);

-- The truth about delegations; the activity rows beside it are for clients.
CREATE TABLE IF NOT EXISTS delegations (
    delegation_id   text NOT NULL,
    caller_id       uuid NOT NULL,
    callee_id       uuid NOT NULL,
    task            text NOT NULL,
    task_preview    text NOT NULL,
    status          text NOT NULL DEFAULT 'pending'
                    CHECK (status IN ('pending', 'queued', 'dispatched', 'in_progress', 'completed', 'failed', 'stuck')),
    is_recorded     boolean NOT NULL DEFAULT false,
    was_queued      boolean NOT NULL DEFAULT false,
    request_id      uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    result_id       uuid NOT NULL DEFAULT gen_random_uuid(),
    chain_id        uuid,
    last_heartbeat  timestamptz,
    deadline        timestamptz NOT NULL DEFAULT now() + interval '6 hours',
    result          text,
    result_preview  text,
    error_detail    text,
    retry_count     int NOT NULL DEFAULT 0,
    idempotency_key text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    completed_at    timestamptz,
    PRIMARY KEY (caller_id, delegation_id)
);
CREATE UNIQUE INDEX IF NOT EXISTS delegations_key_uniq ON delegations (caller_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS delegations_caller_idx ON delegations (caller_id, updated_at DESC);
CREATE INDEX IF NOT EXISTS delegations_deadline_idx ON delegations (deadline)
    WHERE status NOT IN ('completed', 'failed');
CREATE INDEX IF NOT EXISTS delegations_heartbeat_idx ON delegations (last_heartbeat)
    WHERE status = 'in_progress';
CREATE INDEX IF NOT EXISTS delegations_completed_idx ON delegations (completed_at) WHERE completed_at IS NOT NULL;
