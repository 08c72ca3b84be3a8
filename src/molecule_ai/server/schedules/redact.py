"""Take what looks like a credential out of text that others will read."""

from __future__ import annotations

import re

_CREDENTIALS = re.compile(
    r"""(?ix)
    (?:bearer|basic)\s+[\w.~+/=-]{8,}
    | (?:sk|pk|rk)-[\w-]{12,} | (?:ghp|gho|ghs|ghu|github_pat|xox[abprs]|glpat)[_-][\w-]{10,}
    | AKIA[0-9A-Z]{12,} | eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*
    | (?<=://)[^\s/@:]+:[^\s/@]+(?=@)
    | (?<=password=)\S+ | (?<=token=)\S+ | (?<=api_key=)\S+ | (?<=secret=)\S+
    """
)


def redact(text: str) -> str:
    """`text` with credentials as `***`."""
    return _CREDENTIALS.sub("***", text)
