"""The agent: one process that lives for one workspace and speaks A2A."""
