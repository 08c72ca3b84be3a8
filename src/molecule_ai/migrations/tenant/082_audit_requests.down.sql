ALTER TABLE structure_events DROP COLUMN IF EXISTS request;
