-- How often a workspace spoke to everybody in its current minute.
CREATE TABLE IF NOT EXISTS workspace_broadcasts (
    workspace_id uuid PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
    minute_at    timestamptz NOT NULL,
    messages     int NOT NULL
);
