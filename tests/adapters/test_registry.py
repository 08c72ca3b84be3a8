"""The server's registry of runtimes and the agent's table of adapters say the same."""

from __future__ import annotations

from molecule_ai.runtime.adapters import ADAPTERS, load_adapter
from molecule_ai.runtime.adapters.base import describe
from molecule_ai.server.workspaces import runtimes


def test_every_runtime_that_can_be_created_has_an_adapter():
    assert runtimes.names() - {runtimes.EXTERNAL} == set(ADAPTERS)


def test_every_managed_runtime_says_what_it_is():
    for name in ADAPTERS:
        runtime = runtimes.registry()[name]
        assert runtime.display_name
        assert runtime.image
        assert runtime.default_model or not runtime.needs_model


def test_capabilities_are_those_of_the_adapter():
    for name in ADAPTERS:
        flags = describe(load_adapter(name).capabilities)["capabilities"]
        declared = runtimes.registry()[name].capabilities
        assert declared == {flag: True for flag, value in flags.items() if value}


def test_a_default_model_is_one_that_is_listed():
    for runtime in runtimes.registry().values():
        if runtime.models and runtime.default_model:
            assert runtime.lists(runtime.default_model), runtime.name
