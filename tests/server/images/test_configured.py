"""Which image a runtime gets from the settings."""

from __future__ import annotations

import pytest

from molecule_ai import __version__
from molecule_ai.server.environment import read
from molecule_ai.server.images.configured import docker_options, images
from molecule_ai.server.settings import BadSetting


def test_without_a_word_every_runtime_has_the_image_of_this_version() -> None:
    found = images(read({}))
    assert found["echo"] == f"molecule-agent:{__version__}"
    assert "external" not in found


def test_a_template_names_all_and_a_pin_wins() -> None:
    found = images(
        read(
            {
                "WORKSPACE_IMAGE_TEMPLATE": "images.example/{runtime}:7",
                "WORKSPACE_IMAGES": "codex=pinned@sha256:1",
                "WORKSPACE_IMAGE_CLAUDE_CODE": "own/claude:2",
            }
        )
    )
    assert found["langgraph"] == "images.example/langgraph:7"
    assert (found["codex"], found["claude-code"]) == ("pinned@sha256:1", "own/claude:2")


@pytest.mark.parametrize(
    "environment",
    [
        {"WORKSPACE_IMAGES": "codex"},
        {"WORKSPACE_IMAGE_COBOL": "x"},
        {"WORKSPACE_IMAGE_TEMPLATE": "{flavour}"},
    ],
)
def test_what_cannot_be_meant_stops_the_boot(environment: dict[str, str]) -> None:
    with pytest.raises(BadSetting):
        docker_options(read(environment))


def test_sizes_follow_the_settings_and_privilege_does_not() -> None:
    options = docker_options(read({"TIER3_MEMORY_MB": "1024", "TIER3_CPU_SHARES": "512"}))
    assert (options.sizes[3].memory_mb, options.sizes[3].cpus) == (1024, 0.5)
    assert (options.sizes[1].memory_mb, options.sizes[1].cpus) == (256, 0.5)
    assert options.allow_privileged is False


def test_agents_in_containers_are_told_the_name_of_the_host() -> None:
    assert read({"PROVISIONER": "docker"}).agent_platform_url == "http://host.docker.internal:8080"
    assert read({"PROVISIONER": "docker", "PLATFORM_URL": "http://m/"}).agent_platform_url == "http://m"
    assert read({}).agent_platform_url == "http://127.0.0.1:8080"
