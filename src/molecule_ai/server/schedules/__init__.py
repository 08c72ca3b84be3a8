"""Schedules: prompts at a time, the engine that fires them, and the ledger of what became of each."""
