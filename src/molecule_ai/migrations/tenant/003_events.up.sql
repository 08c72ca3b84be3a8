-- A series of numbers whose readers never skip a row (docs/decisions/0010-sequences.md).
--
-- A serial number is drawn before its transaction commits, so a lower number may become visible after
-- a higher one. Whoever draws therefore first announces, by a shared advisory lock that lasts as long
-- as the transaction, how far the series had come. `settled_through` is the number up to which no
-- unfinished transaction can still add a row: readers that move a cursor stop there.
CREATE OR REPLACE FUNCTION draw_seq(series regclass, tag int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    announced CONSTANT text := 'molecule.drew_' || tag;
BEGIN
    IF COALESCE(current_setting(announced, true), '') = '' THEN
        PERFORM pg_advisory_xact_lock_shared(
            (tag::bigint << 48) | COALESCE(pg_sequence_last_value(series), 0));
        PERFORM set_config(announced, 'yes', true);
    END IF;
    RETURN nextval(series);
END $$;

CREATE OR REPLACE FUNCTION settled_through(series regclass, tag int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    drawn CONSTANT bigint := COALESCE(pg_sequence_last_value(series), 0);  -- read before the locks
    unfinished bigint;
BEGIN
    SELECT min(((classid::bigint << 32) | objid::bigint) & ((1::bigint << 48) - 1)) INTO unfinished
      FROM pg_locks
     WHERE locktype = 'advisory' AND objsubid = 1 AND classid::bigint >> 16 = tag
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database());
    RETURN LEAST(drawn, unfinished);
END $$;

-- The append-only log of what changed (contract 03 §7, §18). A change and its row share a transaction.
CREATE SEQUENCE IF NOT EXISTS structure_events_seq_seq;
CREATE TABLE IF NOT EXISTS structure_events (
    seq          bigint PRIMARY KEY DEFAULT draw_seq('structure_events_seq_seq', 1),
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
ALTER SEQUENCE structure_events_seq_seq OWNED BY structure_events.seq;
CREATE INDEX IF NOT EXISTS structure_events_workspace_idx ON structure_events (workspace_id, seq DESC);
CREATE INDEX IF NOT EXISTS structure_events_created_idx ON structure_events (created_at);
-- What retention deletes (contract 03 §7.2).
CREATE INDEX IF NOT EXISTS structure_events_operational_idx ON structure_events (created_at)
    WHERE event_type ~ '^(CRON|DELEGATION|CHANNEL|REQUEST|APPROVAL|SCHEDULE)_';
CREATE INDEX IF NOT EXISTS structure_events_type_idx ON structure_events (event_type, seq DESC);

-- Broadcast-only frames too large for a notification wait here a minute; losing them in a crash is harmless.
CREATE UNLOGGED TABLE IF NOT EXISTS event_frames (
    id         bigserial PRIMARY KEY,
    frame      text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS event_frames_created_idx ON event_frames (created_at);

-- One-time passes for clients that cannot send headers; each stands for the caller that asked for it.
CREATE TABLE IF NOT EXISTS ws_tickets (
    ticket_hash bytea PRIMARY KEY,
    principal   jsonb NOT NULL,
    expires_at  timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS ws_tickets_expires_idx ON ws_tickets (expires_at);
