"""What can be set. `environment.py` reads it; the page docs/configuration.md is written from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from molecule_ai.kernel import ssrf

_PRODUCTION = frozenset({"production", "prod"})
TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "f", "false", "no", "off"})


class BadSetting(Exception):
    """A variable holds a value that its setting cannot take."""


class Settings(Struct, frozen=True, kw_only=True):
    """Everything an operator can set; each field is the environment variable of that name in capitals.

    Numbers that are unparsable or not positive fall back to their default, as contract 01 §22 asks;
    everything else that cannot be read stops the boot and names itself.
    """

    port: Annotated[int, Meta(description="Listening port.")] = 8080
    bind_addr: Annotated[
        str,
        Meta(
            description="Listening address; unset: all interfaces, loopback in development and `molecule up`."
        ),
    ] = ""
    database_url: Annotated[str, Meta(description="PostgreSQL DSN; empty: the embedded PostgreSQL.")] = ""
    database_connections: Annotated[
        int, Meta(description="Connections of all workers of this server together.")
    ] = 20
    workers: Annotated[int, Meta(description="Server processes; each is a full replica.")] = 1
    molecule_home: Annotated[
        str,
        Meta(
            description="Data folder: embedded database, workspaces, admin token, keys; alias "
            "MOLECULE_DATA_DIR."
        ),
    ] = "~/.molecule"
    admin_token: Annotated[str, Meta(description="Bearer with power over the whole organization.")] = ""
    admin_token_previous: Annotated[
        str, Meta(description="Accepted too while the admin token is rotated.")
    ] = ""
    molecule_env: Annotated[
        str,
        Meta(
            description="`production` makes authentication strict and asks for SECRETS_ENCRYPTION_KEY; `dev` "
            "binds loopback and limits no rates. It never relaxes authentication."
        ),
    ] = ""
    molecule_strict_auth: Annotated[
        str, Meta(description="`1` closes every compatibility opening, `0` keeps them in production.")
    ] = ""
    rate_limit: Annotated[
        int,
        Meta(
            description="Requests per minute and credential, counted over the workers of a server; "
            "unset: 600, and none in development."
        ),
    ] = 0
    cors_origins: Annotated[str, Meta(description="Comma-separated origins of browsers that may call.")] = ""
    trusted_proxies: Annotated[str, Meta(description="CIDRs whose X-Forwarded-* headers count.")] = ""
    max_body_bytes: Annotated[
        int, Meta(description="Largest request body, unless a route names its own.")
    ] = 10_485_760
    metrics_token: Annotated[str, Meta(description="When set, GET /metrics needs it as a bearer.")] = ""
    molecule_org_id: Annotated[
        str, Meta(description="Set on tenants of a control plane: turns on the tenant guard.")
    ] = ""
    molecule_org_slug: Annotated[str, Meta(description="Short name of the organization.")] = ""
    molecule_org_name: Annotated[str, Meta(description="Display name of the organization.")] = ""
    molecule_deploy_mode: Annotated[
        str, Meta(description="`saas` or `self-hosted`; decides private address ranges.")
    ] = ""
    canvas_proxy_url: Annotated[str, Meta(description="Where unmatched paths are proxied to.")] = ""
    cp_upstream_url: Annotated[
        str,
        Meta(description="Control plane behind /cp/*; with MOLECULE_ORG_SLUG it vouches for sessions."),
    ] = ""
    molecule_cp_url: Annotated[
        str,
        Meta(description="Control plane that a hosted tenant asks for its configuration at the start."),
    ] = "https://api.moleculesai.app"
    platform_url: Annotated[
        str, Meta(description="Base URL given to agents; default: this server on loopback.")
    ] = ""
    external_platform_url: Annotated[
        str, Meta(description="Public base URL, given to external agents; PUBLIC_URL is an alias.")
    ] = ""
    provisioner: Annotated[
        str,
        Meta(
            description="`process`, `docker` or `none`; `kubernetes` and `control-plane` are not part of "
            "this build, whose start refuses them."
        ),
    ] = ""
    docker_host: Annotated[
        str,
        Meta(
            description="`unix://`, `tcp://` or `ssh://` of the container engine; unset: the usual sockets."
        ),
    ] = ""
    docker_network: Annotated[
        str, Meta(description="Network of agents' containers, made when it is missing.")
    ] = "molecule-monorepo-net"
    docker_publish_address: Annotated[
        str, Meta(description="Address on the engine's machine at which agents' ports appear.")
    ] = "127.0.0.1"
    docker_host_gateway: Annotated[
        str, Meta(description="What `host.docker.internal` is in agents' containers; unset: found out.")
    ] = ""
    molecule_in_docker: Annotated[
        str,
        Meta(
            description="`1`: this server is a container in `DOCKER_NETWORK` and calls agents by name; "
            "unset: the engine is asked."
        ),
    ] = ""
    workspace_image_template: Annotated[
        str,
        Meta(description="Image of a runtime; `{runtime}`, `{image}` and `{version}` stand for its own."),
    ] = "{image}:{version}"
    workspace_images: Annotated[
        str, Meta(description="Pins, `runtime=image,…`; `WORKSPACE_IMAGE_<RUNTIME>` sets a single one.")
    ] = ""
    molecule_image_platform: Annotated[
        str, Meta(description="Platform of images that are pulled, like `linux/amd64`.")
    ] = ""
    ghcr_user: Annotated[str, Meta(description="Who pulls images.")] = ""
    ghcr_token: Annotated[str, Meta(description="The registry's password for it.")] = ""
    image_auto_refresh: Annotated[
        bool, Meta(description="Look for newer images every five minutes and restart idle agents on them.")
    ] = False
    allow_privileged_tiers: Annotated[
        bool, Meta(description="Tiers 3 and 4 are privileged containers, 4 with the engine's socket.")
    ] = False
    tier1_memory_mb: Annotated[int, Meta(description="Memory of agents of tier 1.")] = 256
    tier2_memory_mb: Annotated[int, Meta(description="Memory of agents of tier 2.")] = 512
    tier3_memory_mb: Annotated[int, Meta(description="Memory of agents of tier 3.")] = 2048
    tier4_memory_mb: Annotated[int, Meta(description="Memory of agents of tier 4.")] = 4096
    tier1_cpu_shares: Annotated[int, Meta(description="Processor of tier 1; 1024 is one, a hard cap.")] = 512
    tier2_cpu_shares: Annotated[int, Meta(description="The same for tier 2.")] = 1024
    tier3_cpu_shares: Annotated[int, Meta(description="The same for tier 3.")] = 2048
    tier4_cpu_shares: Annotated[int, Meta(description="The same for tier 4.")] = 4096
    workspace_dir: Annotated[
        str, Meta(description="The operator's folder for containers that may use one and name none.")
    ] = ""
    workspace_reset_session: Annotated[
        bool, Meta(description="Every start of a container forgets the conversation that its runtime kept.")
    ] = False
    secrets_encryption_key: Annotated[
        str, Meta(description="32 bytes, base64 or hex; default: a key file in the home.")
    ] = ""
    secrets_encryption_keys: Annotated[
        str, Meta(description="The same for rotation: id:key,id:key; the first one seals.")
    ] = ""
    configs_dir: Annotated[str, Meta(description="Workspace template folder.")] = ""
    org_templates_dir: Annotated[
        str, Meta(description="Org template folder; default: the bundled examples.")
    ] = ""
    org_import_env_passthrough: Annotated[
        str, Meta(description="Names, or prefixes with *, that an imported organization may refer to.")
    ] = "WORKSPACE_DIR,TELEGRAM_*,SLACK_*,DISCORD_*"
    liveness_ttl_seconds: Annotated[
        int, Meta(description="Silence after which a managed agent is offline.")
    ] = 180
    remote_liveness_stale_after: Annotated[
        int, Meta(description="The same for external agents, in seconds.")
    ] = 90
    heartbeat_interval_seconds: Annotated[int, Meta(description="Told to agents when they register.")] = 30
    provision_timeout_seconds: Annotated[
        int, Meta(description="Overrides every runtime's own; 0: unset.")
    ] = 0
    provision_concurrency: Annotated[int, Meta(description="Agents started at once per process.")] = 3
    hibernation_check_seconds: Annotated[
        int, Meta(description="How often idle workspaces are looked for.")
    ] = 120
    a2a_idle_timeout_seconds: Annotated[
        int, Meta(description="Silence of a target after which a call is given up.")
    ] = 300
    a2a_require_inbound_secret: Annotated[
        bool, Meta(description="Agents started from now on answer nobody but the platform.")
    ] = False
    a2a_canvas_sync_budget: Annotated[
        str, Meta(description="Longest wait of the canvas for an answer, like `90s`; empty: no limit.")
    ] = ""
    mailbox_max_concurrent: Annotated[int, Meta(description="Deliveries under way at once per process.")] = (
        256
    )
    chain_max_depth: Annotated[int, Meta(description="How deep messages between agents may nest.")] = 16
    chain_max_hops: Annotated[int, Meta(description="Messages between agents in one line of cause.")] = 32
    chain_max_visits: Annotated[int, Meta(description="How often one line of cause may reach an agent.")] = 8
    chain_max_fan_out: Annotated[int, Meta(description="Messages an agent may send for one task.")] = 64
    chain_pair_rate: Annotated[int, Meta(description="Messages a minute from one agent to another.")] = 120
    delegation_result_inbox_push: Annotated[
        str,
        Meta(
            description="Results also in the inbox: `1` of all agents, `0` of none, empty: of polling ones."
        ),
    ] = ""
    delegation_idempotency_window_seconds: Annotated[
        int, Meta(description="How long after its end a delegation answers a repeat of its key.")
    ] = 600
    scheduler_poll_seconds: Annotated[
        int, Meta(description="Longest pause between two looks at the schedules.")
    ] = 30
    schedule_fire_timeout_seconds: Annotated[int, Meta(description="Hard limit of one scheduled run.")] = 300
    scheduler_busy_policy: Annotated[
        str, Meta(description="`queue` or `skip` when the workspace is busy.")
    ] = "queue"
    scheduler_misfire_grace_seconds: Annotated[
        int, Meta(description="Older missed slots are skipped; 0: never.")
    ] = 0
    approval_ttl_seconds: Annotated[
        int, Meta(description="Life of an approval request; 0 keeps it open.")
    ] = 600
    approvals_allow_self_decide: Annotated[
        bool, Meta(description="Let a requester decide its own request.")
    ] = False
    activity_retention_days: Annotated[int, Meta(description="Days that activity is kept.")] = 7
    activity_cleanup_interval_hours: Annotated[
        int, Meta(description="Hours between two looks for what has outlived its retention.")
    ] = 6
    chat_retention_days: Annotated[
        int, Meta(description="Days that chat messages are kept; 0 keeps them.")
    ] = 90
    events_retention_days: Annotated[
        int, Meta(description="Days that operational events are kept; 0 keeps them.")
    ] = 90
    workspace_delete_confirm: Annotated[
        str, Meta(description="`strict` or `if-present`: X-Confirm-Name on delete.")
    ] = "strict"
    workspace_get_requires_auth: Annotated[
        bool, Meta(description="Close the redacted anonymous GET of a workspace.")
    ] = False
    molecule_allow_anon_cosmetic: Annotated[
        bool, Meta(description="While there is no admin token, names and positions change without one.")
    ] = True
    workspace_self_patch_sensitive: Annotated[
        bool, Meta(description="An agent may set its own tier, runtime and folder.")
    ] = True
    agent_url_allow_cidrs: Annotated[str, Meta(description="Private ranges that agents may live in.")] = ""
    agent_git_email_domain: Annotated[
        str, Meta(description="Domain of the e-mail addresses that agents commit with.")
    ] = "agents.moleculesai.app"
    agent_orphan_timeout: Annotated[
        int, Meta(description="Seconds after which a local agent without its server ends itself; 0: never.")
    ] = 300
    websocket_limit: Annotated[int, Meta(description="WebSocket clients per process.")] = 5000
    audit_log: Annotated[
        str,
        Meta(
            description="File for the lines of the audit trail, which standard output gets too where it is "
            "no terminal; unset: `/var/log/molecule-audit.jsonl` in production, else none; `off`: none."
        ),
    ] = ""
    git_sha: Annotated[str, Meta(description="Reported by /buildinfo.")] = "dev"
    built_at: Annotated[str, Meta(description="When it was built, reported by /buildinfo.")] = ""
    log_level: Annotated[str, Meta(description="debug, info, warning or error.")] = "info"

    @property
    def home(self) -> Path:
        """The data folder, expanded."""
        return Path(self.molecule_home).expanduser()

    @property
    def strict(self) -> bool:
        """Contract 01 §5.1."""
        explicit = self.molecule_strict_auth.strip().lower()
        if explicit:
            return explicit in TRUE
        return self.molecule_env.strip().lower() in _PRODUCTION

    @property
    def production(self) -> bool:
        return self.molecule_env.strip().lower() in _PRODUCTION

    @property
    def development(self) -> bool:
        return self.molecule_env.strip().lower() in {"dev", "development"}

    @property
    def saas(self) -> bool:
        """Contract 02 §11.6: a hosted tenant, whose agents live in private networks."""
        mode = self.molecule_deploy_mode.strip().lower()
        return mode == "saas" if mode else bool(self.molecule_org_id.strip())

    @property
    def url_policy(self) -> ssrf.UrlPolicy:
        """Where agents may live (contract 02 §11.6)."""
        return ssrf.UrlPolicy(
            saas=self.saas,
            dev=self.development,
            allow_localhost_name=not (self.saas or self.production),
            allow_cidrs=ssrf.parse_cidrs(self.agent_url_allow_cidrs),
        )

    @property
    def canvas_sync_budget_seconds(self) -> float | None:
        """How long the canvas waits for an answer (contract 05 §1); None: as long as it takes."""
        found = re.fullmatch(r"(\d+)(ms|s|m)?", self.a2a_canvas_sync_budget.strip())
        if found is None or not int(found[1]):
            return None
        return int(found[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0}[found[2] or "s"]

    @property
    def backend(self) -> str:
        """The provisioner in force (contract 02 §9.1)."""
        return self.provisioner or ("control-plane" if self.molecule_org_id.strip() else "process")

    @property
    def in_container(self) -> bool | None:
        """Whether this server is a container among the agents'; None: ask the engine (contract 05 §1)."""
        explicit = self.molecule_in_docker.strip().lower()
        return True if explicit in TRUE | {"t"} else False if explicit in _FALSE else None

    @property
    def memory_mb_by_tier(self) -> dict[int, int]:
        own = (self.tier1_memory_mb, self.tier2_memory_mb, self.tier3_memory_mb, self.tier4_memory_mb)
        return dict(enumerate(own, start=1))

    @property
    def cpu_shares_by_tier(self) -> dict[int, int]:
        own = (self.tier1_cpu_shares, self.tier2_cpu_shares, self.tier3_cpu_shares, self.tier4_cpu_shares)
        return dict(enumerate(own, start=1))

    @property
    def address(self) -> str:
        """The address to bind (contract 01 §1)."""
        return self.bind_addr or ("127.0.0.1" if self.development else "0.0.0.0")

    @property
    def agent_platform_url(self) -> str:
        """Base URL that agents call; containers have a name for the machine (contract 02 §9.5)."""
        host = "host.docker.internal" if self.backend == "docker" else "127.0.0.1"
        return (self.platform_url or f"http://{host}:{self.port}").rstrip("/")

    @property
    def ignored_origins(self) -> tuple[str, ...]:
        """Entries of `CORS_ORIGINS` that are no origins."""
        return tuple(o for o in self._listed_origins if not o.startswith(("http://", "https://")))

    @property
    def _listed_origins(self) -> tuple[str, ...]:
        return tuple(o.strip().rstrip("/") for o in self.cors_origins.split(",") if o.strip())

    @property
    def origins(self) -> tuple[str, ...]:
        """Listed browser origins (contract 01 §19.1)."""
        listed = self._listed_origins
        usable = tuple(o for o in listed if o not in self.ignored_origins)
        if usable:
            return usable
        return () if self.strict and listed else ("http://localhost:3000", "http://localhost:3001")

    @property
    def audit_file(self) -> Path | None:
        """Where the audit trail is appended to (contract 03 §15.5)."""
        named = self.audit_log.strip() or ("/var/log/molecule-audit.jsonl" if self.production else "off")
        return None if named == "off" else Path(named)

    @property
    def requests_per_minute(self) -> int | None:
        """The limit of one caller; None: no limit (contract 01 §16.1)."""
        return self.rate_limit or (None if self.development else 600)

    @property
    def pool_size(self) -> int:
        """Pooled connections of one worker: its share, less the connection that listens."""
        return max(2, self.database_connections // max(1, self.workers) - 1)
