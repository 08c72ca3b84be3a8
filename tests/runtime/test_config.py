"""config.yaml, the environment, and what is made of them."""

from pathlib import Path

import pytest

from molecule_ai.runtime.config import InvalidConfig, load_config, parse_config
from molecule_ai.runtime.settings import InvalidEnvironment, read_settings


def test_an_empty_file_gives_the_defaults():
    config = parse_config(None)
    assert (config.name, config.runtime, config.version) == ("Workspace", "langgraph", "1.0.0")
    assert config.model == "anthropic:claude-opus-4-7"
    assert (config.a2a.port, config.a2a.streaming, config.idle_interval_seconds) == (8000, True, 600)


def test_unknown_keys_and_empty_lines_are_ignored():
    config = parse_config({"name": "A", "skills": None, "runtime_config": {"models": []}, "planet": "Mars"})
    assert (config.name, config.skills) == ("A", [])


@pytest.mark.parametrize("tier", ["gold", 2.5, [1]])
def test_a_tier_that_is_no_number_becomes_one(tier):
    assert parse_config({"tier": tier}).tier == 1


def test_numbers_written_as_text_are_numbers():
    assert parse_config({"a2a": {"port": "8001"}, "version": "2"}).a2a.port == 8001


def test_a_wrong_type_names_its_key():
    with pytest.raises(InvalidConfig, match=r"runtime_config\.args"):
        parse_config({"runtime_config": {"args": 3}})


def test_a_file_without_end_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("x" * (256 * 1024 + 1))
    with pytest.raises(InvalidConfig, match="larger than"):
        load_config(tmp_path)


def test_the_role_falls_back_to_the_description():
    assert parse_config({"description": "d"}).effective_role == "d"
    assert parse_config({"description": "d", "role": "r"}).effective_role == "r"


@pytest.mark.parametrize(
    ("environ", "model"),
    [
        ({}, ""),
        ({"MODEL_PROVIDER": "c:3"}, "c:3"),
        ({"MODEL_PROVIDER": "c:3", "MODEL": "b:2"}, "b:2"),
        ({"MODEL_PROVIDER": "c:3", "MODEL": "b:2", "MOLECULE_MODEL": "a:1"}, "a:1"),
        ({"MODEL": "b:2", "MOLECULE_MODEL": ""}, "b:2"),
    ],
)
def test_the_model_variables_have_an_order(environ, model):
    assert read_settings({"WORKSPACE_ID": "w", **environ}).molecule_model == model


def test_the_config_directory_has_an_alias():
    environ = {"WORKSPACE_ID": "w", "CONFIGS_DIR": "/a"}
    assert read_settings(environ).workspace_config_path == Path("/a")
    assert read_settings({**environ, "WORKSPACE_CONFIG_PATH": "/b"}).workspace_config_path == Path("/b")


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "WORKSPACE_ID"),
        ({"WORKSPACE_ID": "w", "AGENT_LISTEN_FD": "three"}, "AGENT_LISTEN_FD"),
        ({"WORKSPACE_ID": "w", "AGENT_ORPHAN_TIMEOUT": "-1"}, "AGENT_ORPHAN_TIMEOUT"),
        ({"WORKSPACE_ID": "w", "APPROVAL_TIMEOUT": "0"}, "APPROVAL_TIMEOUT"),
    ],
)
def test_a_bad_variable_is_named(environ, name):
    with pytest.raises(InvalidEnvironment, match=name):
        read_settings(environ)


def test_settings_never_show_the_token():
    settings = read_settings({"WORKSPACE_ID": "w", "MOLECULE_WORKSPACE_TOKEN": "canary-1234"})
    assert "canary" not in repr(settings)


def test_the_docs_name_every_variable():
    page = (Path(__file__).parents[2] / "docs" / "runtime.md").read_text()
    missing = [
        name.upper()
        for name in read_settings.__globals__["RuntimeSettings"].__struct_fields__
        if f"`{name.upper()}`" not in page
    ]
    assert missing == []
