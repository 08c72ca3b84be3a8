"""Where agents run: one small interface, one implementation for each kind of place."""
