"""The `molecule` command."""
