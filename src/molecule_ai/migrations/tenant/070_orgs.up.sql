-- What was imported, when and by whom (contract 06 §11). The tree itself is rows of `workspaces`.
CREATE TABLE IF NOT EXISTS org_imports (
    id            uuid PRIMARY KEY,
    template      text NOT NULL,
    mode          text NOT NULL DEFAULT 'merge' CHECK (mode IN ('merge', 'reconcile')),
    status        text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'completed', 'failed', 'interrupted')),
    created_count int NOT NULL DEFAULT 0,
    skipped_count int NOT NULL DEFAULT 0,
    error         text NOT NULL DEFAULT '',
    actor         text,
    started_at    timestamptz NOT NULL DEFAULT now(),
    finished_at   timestamptz
);
CREATE INDEX IF NOT EXISTS org_imports_running_idx ON org_imports (started_at) WHERE status = 'running';
CREATE INDEX IF NOT EXISTS org_imports_started_idx ON org_imports (started_at DESC);
-- New roots stand right of the rightmost workspace.
CREATE INDEX IF NOT EXISTS canvas_layouts_x_idx ON canvas_layouts (x);
