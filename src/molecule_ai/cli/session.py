"""Which server to talk to, as whom, and how to print: settled once per invocation."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import typer

from molecule_ai.host.lock import running_server

from . import transport
from .transport import Answer

_TIMEOUT_SECONDS = 30.0
_TOKEN_VARIABLES = ("MOLECULE_API_KEY", "MOLECULE_ORG_TOKEN", "MOLECULE_API_TOKEN", "ADMIN_TOKEN")
_CONFIG_FILES = (Path("molecule.yaml"), Path("~/.config/molecule.yaml"))


_HINTS = {
    401: "Say who you are with --token, or set MOLECULE_API_KEY.",
    429: "Too many requests; try again in a moment.",
    503: "The server cannot do this now; it is safe to try again.",
}


class Refused(Exception):
    """The server answered with a failure."""

    def __init__(self, method: str, answer: Answer) -> None:
        self.status = answer.status_code
        self.answer = answer
        text = f"{method} {answer.url}: HTTP {answer.status_code} — {answer.text.strip()}"
        hint = _HINTS.get(answer.status_code, "")
        super().__init__(f"{text}\n{hint}" if hint else text)


@dataclass
class Session:
    """One invocation of the command line."""

    api_url: str = ""
    token: str = ""
    output: str = "table"
    verbose: bool = False
    home: Path = field(
        default_factory=lambda: Path(os.environ.get("MOLECULE_HOME", "~/.molecule")).expanduser()
    )

    def call(
        self, method: str, path: str, *, body: Any = None, timeout: float = _TIMEOUT_SECONDS, **query: Any
    ) -> Any:
        """One request; the decoded body. Raises `Refused`, and `Unreachable` when nobody answers."""
        return self.request(method, path, body=body, timeout=timeout, params=query).json()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        timeout: float = _TIMEOUT_SECONDS,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; the answer as it came, unless it is a failure (`Refused`)."""
        wanted = {name: value for name, value in (params or {}).items() if value is not None}
        answer = transport.request(
            method,
            self.api_url + path,
            body=body,
            params=wanted,
            headers={**self.headers(), **(headers or {})},
            timeout=timeout,
        )
        if self.verbose:
            typer.echo(f"{method} {answer.url}: {answer.status_code} in {answer.seconds:.3f} s", err=True)
        if answer.status_code >= 400:
            raise Refused(method, answer)
        return answer

    def headers(self) -> dict[str, str]:
        named = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if org_id := os.environ.get("MOLECULE_ORG_ID"):
            named["X-Molecule-Org-Id"] = org_id
        return named

    @property
    def as_json(self) -> bool:
        return self.output == "json"

    def show(self, value: Any, human: str | None = None) -> None:
        """Print `value` as JSON or YAML, or `human` for people when given."""
        if self.output == "json":
            typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
        elif self.output == "yaml" or human is None:
            import yaml

            typer.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)
        else:
            typer.echo(human)

    def table(self, rows: list[dict[str, Any]], columns: Mapping[str, str], *, empty: str) -> None:
        """Print rows in columns (heading to key); an empty list is a sentence."""
        if self.output != "table":
            self.show(rows)
        elif not rows:
            typer.echo(empty)
        else:
            _print_columns(
                [list(columns)] + [[_cell(row.get(key)) for key in columns.values()] for row in rows]
            )


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _print_columns(lines: list[list[str]]) -> None:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def settle(*, api_url: str, token: str, output: str, verbose: bool, config: Path | None) -> Session:
    """Flags, then environment, then the configuration file, then defaults (contract 08 section 2.1).

    With nothing given, the server that runs on this machine's home folder is used, with its admin token.
    """
    file = _config_file(config)
    session = Session(
        output=output or os.environ.get("MOL_OUTPUT") or str(file.get("output", "table")),
        verbose=verbose or bool(os.environ.get("MOL_VERBOSE")) or bool(file.get("verbose")),
    )
    if session.output not in {"table", "json", "yaml"}:
        raise typer.BadParameter("must be table, json or yaml", param_hint="--output")
    local = running_server(session.home)
    environment = next((os.environ[n] for n in ("MOLECULE_API_URL", "MOLECULE_URL") if os.environ.get(n)), "")
    chosen = api_url or environment or str(file.get("api_url", ""))
    session.api_url = (chosen or (local.url if local else "http://localhost:8080")).rstrip("/")
    session.token = token or next((os.environ[n] for n in _TOKEN_VARIABLES if os.environ.get(n)), "")
    if not session.token and local is not None and session.api_url == local.url:
        session.token = _read(session.home / "admin-token")
    return session


def _config_file(named: Path | None) -> dict[str, Any]:
    for candidate in [named] if named else _CONFIG_FILES:
        text = _read(candidate.expanduser())
        if text:
            import yaml

            loaded = yaml.safe_load(text)
            return loaded if isinstance(loaded, dict) else {}
    if named:
        raise typer.BadParameter(f"cannot read {named}", param_hint="--config")
    return {}


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def fail(problem: Exception) -> NoReturn:
    """Say what went wrong on standard error and exit with status 1."""
    typer.echo(f"Error: {problem}", err=True)
    raise SystemExit(1)
