-- What agents and the people who talk to them did (contract 03 §11, §18).
CREATE SEQUENCE IF NOT EXISTS activity_logs_seq_seq;
CREATE TABLE IF NOT EXISTS activity_logs (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    seq             bigint NOT NULL DEFAULT draw_seq('activity_logs_seq_seq', 2),
    workspace_id    uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    activity_type   text NOT NULL,
    source_id       uuid,
    -- Where it came from: canvas, agent, scheduler, channel, webhook, system; the label says which one.
    source_kind     text NOT NULL DEFAULT 'system',
    source_label    text,
    target_id       uuid,
    method          text,
    summary         text,
    request_body    jsonb,
    response_body   jsonb,
    tool_trace      jsonb,
    metadata        jsonb,
    duration_ms     int,
    status          text NOT NULL DEFAULT 'ok',
    error_detail    text,
    idempotency_key text,
    schedule_id     uuid,
    chain_id        uuid,
    chain_parent_id uuid,
    chain_depth     int,
    created_at      timestamptz NOT NULL DEFAULT now()
);
ALTER SEQUENCE activity_logs_seq_seq OWNED BY activity_logs.seq;
CREATE UNIQUE INDEX IF NOT EXISTS activity_logs_seq_uniq ON activity_logs (seq);
CREATE INDEX IF NOT EXISTS activity_logs_workspace_idx ON activity_logs (workspace_id, seq DESC);
CREATE INDEX IF NOT EXISTS activity_logs_type_idx ON activity_logs (workspace_id, activity_type, seq DESC);
-- Retention deletes by class (contract 03 §11.5); a row is in exactly one of these.
CREATE INDEX IF NOT EXISTS activity_logs_chat_idx ON activity_logs (created_at)
    WHERE activity_type = 'a2a_receive' AND source_id IS NULL;
CREATE INDEX IF NOT EXISTS activity_logs_delegation_idx ON activity_logs (created_at)
    WHERE activity_type = 'delegation';
CREATE INDEX IF NOT EXISTS activity_logs_other_idx ON activity_logs (created_at)
    WHERE activity_type <> 'delegation' AND NOT (activity_type = 'a2a_receive' AND source_id IS NULL);
CREATE UNIQUE INDEX IF NOT EXISTS activity_logs_idempotency_uniq ON activity_logs (workspace_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
