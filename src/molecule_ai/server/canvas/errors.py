"""What can go wrong with a viewport (contract 06 §8)."""

from __future__ import annotations

from molecule_ai.kernel.errors import InvalidRequest


class InvalidViewport(InvalidRequest):
    """invalid viewport data"""

    code = "invalid_viewport"
