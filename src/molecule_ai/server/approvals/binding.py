"""What exactly an approval covers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def request_hash(action: str, context: Mapping[str, Any]) -> str:
    """SHA-256 of the action and its arguments, whatever the order of the keys.

    Numbers count by their JSON text, so that 1 and 1.0 are two things, as they are for the agent.
    """
    canonical = json.dumps(
        {"action": action, "context": context},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
