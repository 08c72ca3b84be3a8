"""The event log and bus: what changed is written with the change and reaches every client of every process."""
