"""Agents as processes of this machine: how they are born, recognised, confined and ended."""
