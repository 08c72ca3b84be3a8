"""The single values of a role: its name, model, tier, mount and the like."""

import re

from molecule_ai.kernel.paths import PathRejected, workspace_directory
from molecule_ai.provisioners.base import WorkspaceAccess

from .environment import references
from .fields import Fields
from .limits import MAX_CONCURRENT_TASKS, MAX_MODEL_CHARACTERS, MAX_NAME_CHARACTERS, MAX_ROLE_CHARACTERS

MAX_IDLE_INTERVAL_SECONDS = 30 * 24 * 3600


def read_name(fields: Fields, slug: str | None) -> str:
    """The name, or else the key under which the role stands."""
    if fields.is_blank("name") and not slug:
        fields.problem("a workspace needs a name", "name")
    return (fields.text("name", max_characters=MAX_NAME_CHARACTERS, one_line=True) or slug or "").strip()


def read_role(fields: Fields) -> str:
    """What the role is for, on one line."""
    # Long roles are written over several lines; as a field of a workspace a role is one (contract 02 §4.2).
    return " ".join((fields.text("role", max_characters=MAX_ROLE_CHARACTERS) or "").split())


def read_model(fields: Fields) -> str | None:
    """A `provider:model`, or None."""
    return (fields.text("model", max_characters=MAX_MODEL_CHARACTERS, one_line=True) or "").strip() or None


def read_tier(fields: Fields) -> int | None:
    """The resource tier, or None."""
    return fields.integer("tier", low=1, high=4)


def read_max_tasks(fields: Fields) -> int | None:
    """How many tasks run at once, or None."""
    return fields.integer("max_concurrent_tasks", low=1, high=MAX_CONCURRENT_TASKS)


def read_idle_interval(fields: Fields) -> int | None:
    """Seconds between idle prompts, or None."""
    return fields.integer("idle_interval_seconds", low=1, high=MAX_IDLE_INTERVAL_SECONDS)


def read_inline_prompt(fields: Fields, key: str) -> str | None:
    """A prompt that can only be written in place."""
    return (fields.text(key) or "").replace("\r", "").strip() or None


def read_template(fields: Fields) -> str | None:
    """The workspace template to start from, or None."""
    template = (fields.text("template", one_line=True) or "").strip()
    if template and (template.startswith("/") or ".." in template or "\\" in template):
        fields.warn(f"template '{template}' leaves the template directory and is ignored", "template")
        return None
    return template or None


def read_access(fields: Fields) -> WorkspaceAccess | None:
    """What may be done with the mounted directory, or None."""
    text = fields.text("workspace_access")
    if not text:
        return None
    if text not in list(WorkspaceAccess):
        fields.problem("workspace_access must be none, read_only or read_write", "workspace_access")
        return None
    return WorkspaceAccess(text)


def read_usable_access(
    fields: Fields, workspace_dir: str | None, inherited: WorkspaceAccess
) -> WorkspaceAccess:
    """The access that the role really gets."""
    own = read_access(fields)
    access = own or inherited
    if workspace_dir is None:
        if own not in (None, WorkspaceAccess.NONE):
            fields.problem(f"workspace_access {own} needs a workspace_dir", "workspace_access")
        return WorkspaceAccess.NONE
    if access is WorkspaceAccess.NONE:
        fields.warn("workspace_dir is not mounted while workspace_access is none", "workspace_dir")
    return access


def check_workspace_dir(path: str) -> str | None:
    """Why the expanded path cannot be mounted into a workspace; None when it can."""
    if not path.startswith("/"):
        return "workspace_dir must be an absolute path"
    try:
        workspace_directory(path)
    except PathRejected:
        return "workspace_dir must not contain '..' and not lie in a system directory"
    return None


def read_workspace_dir(fields: Fields) -> str | None:
    """A directory of the host to mount, or None."""
    path = (fields.text("workspace_dir", one_line=True) or "").strip()
    # With a reference in it, only the importer knows the path; it checks the same way.
    if path and not references(path) and (complaint := check_workspace_dir(path)):
        fields.problem(complaint, "workspace_dir")
    return path or None


def read_url(fields: Fields, is_external: bool) -> str | None:
    """Where an external agent listens, or None."""
    url = (fields.text("url", max_characters=2_000, one_line=True) or "").strip()
    if not url:
        return None
    if not re.match(r"https?://[^\s/]", url):
        fields.problem("url must start with http:// or https://", "url")
        return None
    if not is_external:
        fields.warn("url has no effect without external: true", "url")
        return None
    return url


def comparable(name: str) -> str:
    """A name without case, punctuation and leading directories."""
    return re.sub(r"[^a-z0-9]", "", name.rsplit("/", 1)[-1].lower())


def check_parent(fields: Fields, parent_names: set[str]) -> None:
    """Warn when an informational `parent` contradicts the tree."""
    said = fields.text("parent")
    if said and comparable(said) not in parent_names:
        fields.warn(
            f"parent '{said}' is not where the workspace stands; its place in the tree counts", "parent"
        )
