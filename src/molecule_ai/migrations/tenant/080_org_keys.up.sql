-- What narrows a key of the organization (contract 01 §24 row 34); the defaults narrow nothing.
ALTER TABLE org_api_tokens ADD COLUMN IF NOT EXISTS expires_at timestamptz;
ALTER TABLE org_api_tokens ADD COLUMN IF NOT EXISTS role text NOT NULL DEFAULT 'admin'
    CHECK (role IN ('admin', 'editor', 'reader'));
ALTER TABLE org_api_tokens ADD COLUMN IF NOT EXISTS workspace_ids uuid[];
