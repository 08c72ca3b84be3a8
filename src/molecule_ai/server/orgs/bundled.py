"""The organizations that come with Molecule."""

from importlib import resources
from pathlib import Path


def bundled_orgs() -> Path:
    """The directory of the example organizations, in an installed package or in a checkout."""
    package = Path(str(resources.files("molecule_ai")))
    installed = package / "examples" / "orgs"
    return installed if installed.is_dir() else package.parents[1] / "examples" / "orgs"
