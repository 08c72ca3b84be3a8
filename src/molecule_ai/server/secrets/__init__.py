"""Secrets: values that agents need and nobody may read back."""
