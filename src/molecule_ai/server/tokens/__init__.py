"""Bearers: the tokens of workspaces, the keys of the organization, the operator's bootstrap token."""
