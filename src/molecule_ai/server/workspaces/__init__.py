"""Workspaces: durable agent roles in an org chart, and what drives each to its desired state."""
