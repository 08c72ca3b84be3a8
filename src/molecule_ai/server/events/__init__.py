"""The event log and bus: written with the change, delivered to every client of every process."""
