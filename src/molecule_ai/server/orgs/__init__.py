"""Organizations as documents: an `org.yaml` becomes a tree of workspaces."""
