"""SQL history: one numbered line of migrations per server."""
