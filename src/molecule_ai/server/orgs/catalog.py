"""The directory of importable organizations. Every function reads the disk: call it in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import molecule_ai
from molecule_ai.kernel import log
from molecule_ai.kernel.paths import PathRejected, inside

from .errors import InvalidOrgDirectory, TemplateNotFound
from .loader import FILE_NAMES, load_directory
from .problems import InvalidOrg, OrgNotFound
from .schemas import OrgTemplate


def bundled() -> Path:
    """The examples that come with the package, or with the checkout that it runs from."""
    package = Path(molecule_ai.__file__).parent
    installed = package / "examples" / "orgs"
    return installed if installed.is_dir() else package.parents[1] / "examples" / "orgs"


class Catalog:
    """One directory with a subdirectory per organization."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._log = log.get()

    def directory(self, name: str) -> Path:
        """Where an organization lies. Raises `InvalidOrgDirectory` and `TemplateNotFound`."""
        try:
            path = inside(self._root, name)
            found = any((path / file).is_file() for file in FILE_NAMES)
        except (PathRejected, OSError) as problem:  # OSError: a name too long for the file system
            raise InvalidOrgDirectory from problem
        if not found:
            raise TemplateNotFound(f"org template not found: {name}")
        return path

    def has(self, name: str) -> bool:
        """Whether a text is the name of an organization here."""
        try:
            self.directory(name)
        except (InvalidOrgDirectory, TemplateNotFound):
            return False
        return True

    def templates(self, *, include_invalid: bool) -> list[OrgTemplate]:
        """Every organization; broken ones only on request."""
        return list(self._templates(include_invalid))

    def _templates(self, include_invalid: bool) -> Iterator[OrgTemplate]:
        if not self._root.is_dir():
            return
        for path in sorted(self._root.iterdir()):
            if not path.is_dir():
                continue
            try:
                yield _described(path)
            except OrgNotFound:
                continue
            except InvalidOrg as problem:
                self._log.warning("org_template_broken", dir=path.name, error=str(problem))
                if include_invalid:
                    yield _broken(path.name, str(problem))


def _described(path: Path) -> OrgTemplate:
    org = load_directory(path, strict=False)
    return OrgTemplate(
        dir=path.name,
        name=org.name,
        description=org.description,
        workspaces=sum(1 for _ in org.walk()),
        required_env=[requirement.to_wire() for requirement in org.required_env],
        recommended_env=[requirement.to_wire() for requirement in org.recommended_env],
    )


def _broken(name: str, error: str) -> OrgTemplate:
    return OrgTemplate(
        dir=name, name=name, description="", workspaces=0, required_env=[], recommended_env=[], error=error
    )
