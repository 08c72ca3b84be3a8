-- The append-only log of what changed (contract 03 §7, §18). A change and its row share a transaction.
CREATE TABLE IF NOT EXISTS structure_events (
    seq          bigserial PRIMARY KEY,
    id           uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    event_type   text NOT NULL,
    workspace_id uuid,
    agent_id     uuid,
    target_id    uuid,
    payload      jsonb NOT NULL DEFAULT '{}',
    actor        text,
    -- The causal chain: which message made this happen.
    chain_id     uuid,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS structure_events_workspace_idx ON structure_events (workspace_id, seq DESC);
CREATE INDEX IF NOT EXISTS structure_events_created_idx ON structure_events (created_at);
CREATE INDEX IF NOT EXISTS structure_events_type_idx ON structure_events (event_type, seq DESC);

-- Broadcast-only frames too large for a notification wait here a minute; losing them in a crash is harmless.
CREATE UNLOGGED TABLE IF NOT EXISTS event_frames (
    id         bigserial PRIMARY KEY,
    frame      text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS event_frames_created_idx ON event_frames (created_at);

CREATE TABLE IF NOT EXISTS ws_tickets (
    ticket_hash bytea PRIMARY KEY,
    actor       text NOT NULL,
    expires_at  timestamptz NOT NULL
);
