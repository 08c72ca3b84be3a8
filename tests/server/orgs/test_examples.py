"""The organizations that we ship."""

import pytest

from molecule_ai.server.orgs.catalog import bundled
from molecule_ai.server.orgs.document import Org
from molecule_ai.server.orgs.loader import load_directory

EXAMPLES = bundled()


def load(name: str) -> Org:
    return load_directory(EXAMPLES / name, runtimes=frozenset({"langgraph"}))


def levels(org: Org) -> int:
    depth: dict[str, int] = {}
    for workspace, parent in org.spawning():
        depth[workspace.path] = depth[parent.path] + 1 if parent else 1
    return max(depth.values())


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir()))
def test_an_example_needs_nothing_and_gives_each_role_a_prompt(name: str) -> None:
    org = load(name)

    assert org.warnings == ()
    assert org.required_env == ()
    for workspace in org.walk():
        assert workspace.model == "offline:demo"
        assert workspace.files_dir is not None
        prompt = (EXAMPLES / name / workspace.files_dir / "system-prompt.md").read_text()
        assert len(prompt) > 200, workspace.name


def test_the_demo_organization_shows_everything_that_the_demo_does() -> None:
    org = load("launch-studio")
    workspaces = list(org.walk())

    assert len(workspaces) >= 7
    assert levels(org) == 3
    assert sum(len(workspace.schedules) for workspace in workspaces) == 1
    assert [rule.action for workspace in workspaces for rule in workspace.approvals] == ["publish*"]
    assert sum(workspace.initial_prompt is not None for workspace in workspaces) == 1
