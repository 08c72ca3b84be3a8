ALTER TABLE workspaces DROP COLUMN IF EXISTS slept_from, DROP COLUMN IF EXISTS config_changes;
