"""The prose that installed plugins add to the system prompt (contract 06 §1.9)."""

from collections.abc import Iterator
from pathlib import Path

from molecule_ai.runtime.files import read_text

NOT_FRAGMENTS = frozenset({"readme.md", "changelog.md", "license.md", "contributing.md"})


def plugin_rules(config_dir: Path, shared: Path) -> list[str]:
    """Return every `rules/*.md`, headed by plugin and file."""
    return [
        f"# Plugin: {plugin.name} / rule: {path.name}\n\n{text}"
        for plugin in plugin_dirs(config_dir, shared)
        for path in sorted(plugin.glob("rules/*.md"))
        if (text := (read_text(path) or "").strip())
    ]


def plugin_fragments(config_dir: Path, shared: Path) -> list[str]:
    """Return every Markdown file in a plugin's root that is meant for the prompt."""
    return [
        f"# Plugin: {plugin.name} / fragment: {path.name}\n\n{text}"
        for plugin in plugin_dirs(config_dir, shared)
        for path in sorted(plugin.glob("*.md"))
        if path.name.lower() not in NOT_FRAGMENTS and (text := (read_text(path) or "").strip())
    ]


def plugin_dirs(config_dir: Path, shared: Path) -> Iterator[Path]:
    """Yield plugin directories; the workspace's own copy of a name wins over the shared one."""
    seen: set[str] = set()
    for root in (config_dir / "plugins", shared):
        for path in sorted(root.glob("*")) if root.is_dir() else ():
            if path.is_dir() and path.name not in seen:
                seen.add(path.name)
                yield path
