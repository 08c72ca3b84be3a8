"""The control plane for organizations of AI agents."""

__version__ = "0.1.0"
