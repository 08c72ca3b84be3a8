"""The migrations of the tenant server."""
