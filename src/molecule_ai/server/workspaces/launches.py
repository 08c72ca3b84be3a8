"""From a row to a `Launch`: files, secrets, identity, and what must be there before a start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from molecule_ai.kernel.db import Connection
from molecule_ai.kernel.errors import ApiError
from molecule_ai.provisioners.base import Launch, Provisioner, Root, WorkspaceAccess
from molecule_ai.provisioners.errors import ProvisionError
from molecule_ai.server.secrets.errors import SecretsBroken
from molecule_ai.server.secrets.service import Secrets

from . import launch_config, runtimes
from .reconcile_store import Claim

CONFIG = launch_config.CONFIG


class LaunchRefused(Exception):
    """A start that cannot succeed; `code` is a fail reason of contract 02 §9.2."""

    def __init__(self, code: str, text: str, **facts: object) -> None:
        super().__init__(text)
        self.code = code
        self.facts = facts


class Launches:
    """Puts together what one start needs; touches nothing that runs."""

    def __init__(
        self,
        secrets: Secrets,
        provisioner: Provisioner,
        *,
        org_id: str | None,
        git_email_domain: str,
        platform_env: Mapping[str, str],
    ) -> None:
        self._secrets = secrets
        self._provisioner = provisioner
        self._org_id = org_id
        self._git_email_domain = git_email_domain
        self._platform_env = platform_env

    async def environment(self, connection: Connection, claim: Claim) -> dict[str, str]:
        """Secrets over the git identity. Raises `LaunchRefused`."""
        try:
            secrets = await self._secrets.environment(connection, claim.id)
        except SecretsBroken as broken:
            text = "failed to decrypt a secret"
            raise LaunchRefused("SECRET_DECRYPT", text, **broken.extra) from broken
        return self._git_identity(claim.name) | secrets

    async def require_environment(self, claim: Claim, environment: Mapping[str, str]) -> dict[str, Any]:
        """Check that every name the configuration asks for has a value; return the configuration.

        It is the file that the agent will read, with what changed in the row since its last start.
        """
        config = await self._config(claim)
        known = runtimes.registry().get(claim.runtime)
        wanted = [*_required(config), *(known.required_env if known else ())]
        missing = sorted({name for name in wanted if not environment.get(name)})
        if missing:
            text = f"missing required environment: {', '.join(missing)}"
            raise LaunchRefused("MISSING_ENV", text, missing=missing)
        return config

    async def apply_changes(self, claim: Claim) -> None:
        """Write what changed in the row since the last start into the agent's own `config.yaml`.

        Every other key stays as it is. A file that is not there yet is written by the start; one that
        cannot be read is left to the agent, which comes up and says so.
        """
        if not claim.config_changes or claim.launch_overwrite:
            return
        try:
            files = self._provisioner.files(claim.id)
            text = (await files.read(Root.CONFIGS, CONFIG)).decode(errors="replace")
            changed = launch_config.amend({CONFIG: text}, claim.config_changes)[CONFIG]
        except (ProvisionError, ApiError, launch_config.InvalidConfigFile):
            return
        await files.write(Root.CONFIGS, CONFIG, changed.encode())

    def build(
        self,
        claim: Claim,
        instance_id: UUID,
        environment: Mapping[str, str],
        *,
        token: str,
        inbound_secret: str,
    ) -> Launch:
        return Launch(
            workspace_id=claim.id,
            instance_id=instance_id,
            generation=claim.generation,
            name=claim.name,
            token=token,
            tier=claim.tier,
            runtime=claim.runtime,
            role=claim.role,
            model=claim.model,
            parent_id=claim.parent_id,
            org_id=self._org_id,
            env=environment,
            platform_env=self._platform_env,
            config_files={path: text.encode() for path, text in claim.launch_files.items()},
            overwrite=claim.launch_overwrite,
            inbound_secret=inbound_secret,
            workspace_dir=claim.workspace_dir,
            workspace_access=WorkspaceAccess(claim.workspace_access),
            reset_session=claim.reset_session,
        )

    async def _config(self, claim: Claim) -> dict[str, Any]:
        """The `config.yaml` that the agent will read: its own edits win over what it was created with."""
        text = claim.launch_files.get(CONFIG, "")
        if not claim.launch_overwrite:
            try:
                own = await self._provisioner.files(claim.id).read(Root.CONFIGS, CONFIG)
                text = own.decode(errors="replace")
            except (ProvisionError, ApiError):
                pass  # it has none yet
        try:
            return launch_config.read(launch_config.amend({CONFIG: text}, claim.config_changes)[CONFIG])
        except launch_config.InvalidConfigFile:
            return {}  # the agent comes up and says what is wrong with it

    def _git_identity(self, name: str) -> dict[str, str]:
        slug = "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split()) or "agent"
        author, email = f"Molecule AI {name}", f"{slug}@{self._git_email_domain}"
        return {
            "GIT_AUTHOR_NAME": author,
            "GIT_COMMITTER_NAME": author,
            "GIT_AUTHOR_EMAIL": email,
            "GIT_COMMITTER_EMAIL": email,
        }


def _required(config: Mapping[str, Any]) -> list[str]:
    """`runtime_config.required_env`, and that of the chosen entry of `models`."""
    section = config.get("runtime_config")
    if not isinstance(section, dict):
        return []
    names = list(section.get("required_env") or [])
    models = section.get("models")
    chosen = config.get("model") or section.get("model")
    if isinstance(models, list):
        for entry in models:
            if isinstance(entry, dict) and chosen and chosen in (entry.get("id"), entry.get("name")):
                names += entry.get("required_env") or []
    return [name for name in names if isinstance(name, str)]
