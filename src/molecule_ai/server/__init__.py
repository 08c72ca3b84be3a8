"""The tenant server: one organization, its API, its engines."""
