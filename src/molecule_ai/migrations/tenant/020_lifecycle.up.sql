-- What the reconciler and the liveness engines remember of a workspace.
ALTER TABLE workspaces
    -- When the running instance was recorded; null while a start is only wished for.
    ADD COLUMN IF NOT EXISTS launched_at timestamptz,
    -- Since when an agent of this workspace has been alive without a break.
    ADD COLUMN IF NOT EXISTS online_since timestamptz,
    -- Why the pending restart was asked for, and when first: user, config, detector, wake or ''.
    ADD COLUMN IF NOT EXISTS restart_cause text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS restart_asked_at timestamptz,
    -- Automatic restarts of the last 15 minutes: their number decides between a back-off and giving up.
    ADD COLUMN IF NOT EXISTS restart_times timestamptz[] NOT NULL DEFAULT '{}',
    -- The note that the next agent gets when it comes online (contract 02 section 5.8).
    ADD COLUMN IF NOT EXISTS restart_context jsonb,
    -- How the next start treats what the previous agent left on disk.
    ADD COLUMN IF NOT EXISTS launch_overwrite boolean NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS reset_session boolean NOT NULL DEFAULT false,
    -- Removed workspaces keep their files for a week.
    ADD COLUMN IF NOT EXISTS files_removed_at timestamptz;

CREATE INDEX IF NOT EXISTS workspaces_status_changed_idx ON workspaces (status, status_changed_at);
CREATE INDEX IF NOT EXISTS workspaces_node_idx ON workspaces (node) WHERE node IS NOT NULL;
CREATE INDEX IF NOT EXISTS workspaces_files_idx ON workspaces (removed_at)
    WHERE status = 'removed' AND files_removed_at IS NULL;

-- Machines whose replicas start local processes. An agent's row names its machine.
CREATE TABLE IF NOT EXISTS nodes (
    id      text PRIMARY KEY,
    seen_at timestamptz NOT NULL DEFAULT now()
);
