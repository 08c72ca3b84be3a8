"""Delegations: tasks that a workspace hands to another and gets the result of later."""
