-- What the next start of an agent has to bring about besides what the row says.
ALTER TABLE workspaces
    -- Keys of config.yaml that were changed in the row since the last start; null takes a key away.
    ADD COLUMN IF NOT EXISTS config_changes jsonb NOT NULL DEFAULT '{}',
    -- The status to go back to when an agent that is put to sleep does not stop.
    ADD COLUMN IF NOT EXISTS slept_from workspace_status;
