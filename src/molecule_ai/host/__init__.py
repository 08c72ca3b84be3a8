"""Running a tenant server on this machine: embedded database, worker processes, clean end."""
