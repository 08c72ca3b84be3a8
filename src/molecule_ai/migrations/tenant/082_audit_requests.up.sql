-- Which request made the change of an audit row: id, method, route pattern, status, target, key prefix.
ALTER TABLE structure_events ADD COLUMN IF NOT EXISTS request jsonb;
