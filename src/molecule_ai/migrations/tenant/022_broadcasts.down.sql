DROP TABLE IF EXISTS workspace_broadcasts;
