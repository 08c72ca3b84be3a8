"""Agents as containers of any engine that speaks the Docker API."""
