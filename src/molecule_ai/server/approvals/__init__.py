"""Approvals: an agent asks before it acts, somebody else decides, and the decision covers that act alone."""
