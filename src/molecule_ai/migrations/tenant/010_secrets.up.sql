-- Sealed values, the free configuration object, and the ledger of models (contract 02 §2.2, 05 §4).
CREATE TABLE IF NOT EXISTS workspace_secrets (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id       uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    key                text NOT NULL,
    encrypted_value    bytea NOT NULL,
    encryption_version int NOT NULL DEFAULT 0,
    -- How the value may reach an agent, and the hosts that it may be sent to; none means any.
    delivery           text NOT NULL DEFAULT 'environment' CHECK (delivery IN ('environment', 'command', 'broker')),
    hosts              text[] NOT NULL DEFAULT '{}',
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT workspace_secrets_key_uniq UNIQUE (workspace_id, key)
);
CREATE INDEX IF NOT EXISTS workspace_secrets_by_key_idx ON workspace_secrets (key, workspace_id);

CREATE TABLE IF NOT EXISTS global_secrets (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    key                text NOT NULL UNIQUE,
    encrypted_value    bytea NOT NULL,
    encryption_version int NOT NULL DEFAULT 0,
    delivery           text NOT NULL DEFAULT 'environment' CHECK (delivery IN ('environment', 'command', 'broker')),
    hosts              text[] NOT NULL DEFAULT '{}',
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS workspace_config (
    workspace_id uuid PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
    data         jsonb NOT NULL DEFAULT '{}',
    updated_at   timestamptz NOT NULL DEFAULT now()
);

-- Which model occupied a role and when.
CREATE TABLE IF NOT EXISTS agents (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id   uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    model          text NOT NULL,
    status         text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'replaced', 'removed')),
    removal_reason text CHECK (removal_reason IN ('model_replaced', 'manual_removal')),
    removed_at     timestamptz,
    created_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS agents_workspace_idx ON agents (workspace_id, created_at);
CREATE UNIQUE INDEX IF NOT EXISTS agents_active_uniq ON agents (workspace_id) WHERE status = 'active';
CREATE INDEX IF NOT EXISTS agents_created_idx ON agents (created_at, id) WHERE status = 'active';

-- Where the model comes from: what a cleared override falls back to depends on it.
ALTER TABLE workspaces ADD COLUMN IF NOT EXISTS model_source text NOT NULL DEFAULT 'default'
    CHECK (model_source IN ('default', 'template', 'override'));
CREATE INDEX IF NOT EXISTS workspaces_runtime_idx ON workspaces (runtime, created_at, id)
    WHERE status <> 'removed';
