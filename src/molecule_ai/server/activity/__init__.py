"""The activity log: what agents did and what was said to them, and messages from agents to people."""
