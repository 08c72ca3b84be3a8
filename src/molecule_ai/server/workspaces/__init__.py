"""Workspaces: durable agent roles in an org chart, and the reconciler that drives each to its desired state."""
