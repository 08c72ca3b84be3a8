"""Skill packages: `skills/<name>/SKILL.md` with front matter (contract 02 §10)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import Struct, field

from molecule_ai.runtime.files import read_text

log = logging.getLogger(__name__)

SKILL_FILE = "SKILL.md"
POLL_SECONDS = 3.0
DEBOUNCE_SECONDS = 2.0

Fingerprint = dict[str, tuple[int, int]]


class FrontMatter(Struct):
    """What a skill says about itself."""

    name: str = ""
    description: str = ""
    tags: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    runtime: list[str] = field(default_factory=list)


class Skill(Struct, frozen=True):
    """One loaded skill."""

    id: str
    about: FrontMatter
    instructions: str

    @property
    def name(self) -> str:
        """Return the title people see."""
        return self.about.name or self.id

    def as_card(self) -> dict[str, Any]:
        """Return the skill as an agent card lists it."""
        listed = {
            "id": self.id,
            "name": self.name,
            "description": self.about.description or self.name,
            "tags": self.about.tags,
        }
        return {**listed, "examples": self.about.examples} if self.about.examples else listed


def load_skills(config_dir: Path, wanted: Iterable[str], runtime: str) -> list[Skill]:
    """Load the named skills, or every one there is when none is named.

    A skill that names other runtimes only is left out. Malformed front matter counts as empty.
    """
    root = config_dir / "skills"
    names = list(wanted) or sorted(path.parent.name for path in root.glob(f"*/{SKILL_FILE}"))
    skills = (_load(root, name) for name in names)
    return [
        skill for skill in skills if skill and (not skill.about.runtime or runtime in skill.about.runtime)
    ]


def split_front_matter(text: str) -> tuple[FrontMatter, str]:
    """Separate the YAML between `---` lines from the Markdown below it."""
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in (line.strip() for line in lines[1:]):
        return FrontMatter(), text.strip()
    end = next(index for index, line in enumerate(lines[1:], start=1) if line.strip() == "---")
    body = "\n".join(lines[end + 1 :]).strip()
    try:
        about = msgspec.convert(yaml.safe_load("\n".join(lines[1:end])) or {}, FrontMatter)
    except (yaml.YAMLError, msgspec.ValidationError):
        return FrontMatter(), body
    return about, body


def _load(root: Path, name: str) -> Skill | None:
    path = root / name / SKILL_FILE
    if not path.resolve().is_relative_to(root.resolve()):
        return None
    text = read_text(path)
    if text is None:
        return None
    about, body = split_front_matter(text)
    return Skill(name, about, body)


def fingerprint(config_dir: Path) -> Fingerprint:
    """Return what changes when any file of any skill changes."""
    found: Fingerprint = {}
    for path in (config_dir / "skills").rglob("*"):
        try:
            status = path.stat()
        except OSError:
            continue
        found[str(path)] = (status.st_mtime_ns, status.st_size)
    return found


async def watch_skills(
    config_dir: Path,
    reload: Callable[[], Awaitable[None]],
    *,
    poll_seconds: float = POLL_SECONDS,
    debounce_seconds: float = DEBOUNCE_SECONDS,
) -> None:
    """Call `reload` after the skills have changed and come to rest."""
    known = fingerprint(config_dir)
    while True:
        await asyncio.sleep(poll_seconds)
        seen = fingerprint(config_dir)
        if seen == known:
            continue
        while True:
            await asyncio.sleep(debounce_seconds)
            settled = fingerprint(config_dir)
            if settled == seen:
                break
            seen = settled
        known = settled
        log.info("skills_changed files=%d", len(settled))
        await reload()
