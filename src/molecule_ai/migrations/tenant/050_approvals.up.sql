-- Requests that wait for somebody's decision (contract 03 §18), and the rules of each workspace about them.
CREATE TABLE IF NOT EXISTS approval_requests (
    id                uuid PRIMARY KEY,
    workspace_id      uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    gate_workspace_id uuid,
    task_id           text NOT NULL DEFAULT '',
    action            text NOT NULL,
    reason            text NOT NULL DEFAULT '',
    context           jsonb NOT NULL DEFAULT '{}',
    metadata          jsonb NOT NULL DEFAULT '{}',
    options           jsonb NOT NULL DEFAULT '[]',
    status            text NOT NULL DEFAULT 'pending'
                      CHECK (status IN ('pending', 'approved', 'denied', 'escalated', 'withdrawn')),
    -- Who may decide: people and every ancestor, or people alone.
    approver          text NOT NULL DEFAULT 'any' CHECK (approver IN ('any', 'user', 'parent')),
    -- What exactly is approved: SHA-256 of the canonical action and context.
    request_hash      text NOT NULL,
    decided_by        text,
    decided_at        timestamptz,
    decided_principal jsonb,
    comment           text NOT NULL DEFAULT '',
    chosen_option     text NOT NULL DEFAULT '',
    raised_by         text NOT NULL DEFAULT '',
    -- When an approval was used; it is good for one use.
    consumed_at       timestamptz,
    expires_at        timestamptz,
    escalate_at       timestamptz,
    escalated_to      uuid[] NOT NULL DEFAULT '{}',
    idempotency_key   text,
    created_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS approval_requests_workspace_idx ON approval_requests (workspace_id, created_at DESC);
CREATE INDEX IF NOT EXISTS approval_requests_gate_idx ON approval_requests (gate_workspace_id, created_at DESC)
    WHERE gate_workspace_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS approval_requests_status_idx ON approval_requests (status, created_at DESC);
CREATE INDEX IF NOT EXISTS approval_requests_expires_idx ON approval_requests (expires_at)
    WHERE status IN ('pending', 'escalated');
CREATE INDEX IF NOT EXISTS approval_requests_escalate_idx ON approval_requests (escalate_at)
    WHERE status IN ('pending', 'escalated');
CREATE INDEX IF NOT EXISTS approval_requests_unused_idx ON approval_requests (workspace_id, request_hash)
    WHERE status = 'approved' AND consumed_at IS NULL;
CREATE UNIQUE INDEX IF NOT EXISTS approval_requests_key_uniq ON approval_requests (workspace_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

CREATE TABLE IF NOT EXISTS approval_rules (
    workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    position     int NOT NULL,
    action       text NOT NULL,
    approver     text NOT NULL DEFAULT 'user' CHECK (approver IN ('user', 'parent')),
    ttl_seconds  int CHECK (ttl_seconds >= 0),
    reason       text NOT NULL DEFAULT '',
    PRIMARY KEY (workspace_id, position)
);
