DROP INDEX IF EXISTS workspaces_runtime_idx;
ALTER TABLE IF EXISTS workspaces DROP COLUMN IF EXISTS model_source;
DROP TABLE IF EXISTS agents;
DROP TABLE IF EXISTS workspace_config;
DROP TABLE IF EXISTS global_secrets;
DROP TABLE IF EXISTS workspace_secrets;
