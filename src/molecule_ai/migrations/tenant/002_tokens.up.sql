-- Bearers: only their SHA-256 is stored (contract 01 §20).
CREATE TABLE IF NOT EXISTS workspace_auth_tokens (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    token_hash   bytea NOT NULL UNIQUE,
    prefix       text NOT NULL,
    name         text,
    kind         text NOT NULL DEFAULT 'user' CHECK (kind IN ('agent', 'user', 'external')),
    scopes       text[],
    created_by   text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    -- A rotated agent token dies when its successor is first used, at the latest at this instant.
    expires_at   timestamptz,
    revoked_at   timestamptz
);
CREATE INDEX IF NOT EXISTS workspace_auth_tokens_live_idx ON workspace_auth_tokens (workspace_id)
    WHERE revoked_at IS NULL;

CREATE TABLE IF NOT EXISTS org_api_tokens (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    token_hash   bytea NOT NULL UNIQUE,
    prefix       text NOT NULL,
    name         text,
    created_by   text,
    -- The address it was minted from; with `created_by` the key of the mint limiter.
    created_from text,
    org_id       uuid REFERENCES workspaces (id) ON DELETE SET NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    revoked_at   timestamptz,
    revoked_by   text
);
CREATE INDEX IF NOT EXISTS org_api_tokens_live_idx ON org_api_tokens (created_at DESC) WHERE revoked_at IS NULL;
CREATE INDEX IF NOT EXISTS org_api_tokens_minted_idx ON org_api_tokens (created_by, created_from, created_at);
CREATE INDEX IF NOT EXISTS org_api_tokens_org_id_idx ON org_api_tokens (org_id) WHERE org_id IS NOT NULL;
