ALTER TABLE org_api_tokens DROP COLUMN IF EXISTS workspace_ids;
ALTER TABLE org_api_tokens DROP COLUMN IF EXISTS role;
ALTER TABLE org_api_tokens DROP COLUMN IF EXISTS expires_at;
