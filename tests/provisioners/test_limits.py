from __future__ import annotations

import subprocess
import sys
from uuid import uuid4

import msgspec
import pytest

from molecule_ai.provisioners.environment import agent_environment
from molecule_ai.provisioners.local import limits

from .conftest import make_launch

REPORT = """
import msgspec, os, resource, sys
from molecule_ai.provisioners.local import limits
limits.apply(msgspec.json.decode(sys.argv[1], type=limits.Limits))
try:
    block = bytearray(int(sys.argv[2]))
except MemoryError:
    block = None
print(block is not None, os.nice(0), resource.getrlimit(resource.RLIMIT_NOFILE)[1],
      resource.getrlimit(resource.RLIMIT_CORE)[0], open('/proc/self/oom_score_adj').read())
"""


def confined(tier: int, allocate_mb: int) -> list[str]:
    chosen = msgspec.json.encode(limits.limits_for(tier, {})).decode()
    argv = [sys.executable, "-c", REPORT, chosen, str(allocate_mb * limits.MiB)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(("tier", "megabytes"), [(1, 256), (2, 512), (3, 2048)])
def test_a_tier_holds_a_process_to_its_memory(tier: int, megabytes: int) -> None:
    assert confined(tier, megabytes // 2)[0] == "True"
    assert confined(tier, megabytes)[0] == "False"


def test_a_tier_sets_priority_files_and_no_core_dumps() -> None:
    assert confined(1, 1)[1:] == ["10", "1024", "0", "500"]


def test_an_unknown_tier_means_the_standard_one_and_memory_can_be_set() -> None:
    assert limits.limits_for(9, {}) == limits.limits_for(2, {})
    assert limits.limits_for(2, {2: 768}).data_mb == 768
    assert "768 MiB" in limits.describe(limits.limits_for(2, {2: 768}), is_confined=True)


def test_the_model_of_the_workspace_yields_to_a_secret() -> None:
    def models(**env: str) -> tuple[str, str]:
        made = agent_environment(make_launch(model="openai:a", env=env), "http://platform", {})
        return made["MODEL"], made["MOLECULE_MODEL"]

    assert models() == ("openai:a", "openai:a")
    assert models(MODEL_PROVIDER="openai:b") == ("openai:b", "openai:b")
    assert models(MODEL="openai:c", MODEL_PROVIDER="openai:b") == ("openai:c", "openai:c")


def test_what_the_platform_sets_wins_over_secrets_and_reserved_names_cannot_be_given() -> None:
    launch = make_launch(
        env={"ADMIN_TOKEN": "x", "TIER": "9", "MOLECULE_LLM_USAGE_TOKEN": "forged", "KEY": "1", "A=B": "x"},
        platform_env={"MOLECULE_LLM_USAGE_TOKEN": "real"},
        org_id="org",
        parent_id=uuid4(),
    )
    made = agent_environment(launch, "http://platform", {"HOME": "/here"})
    assert made["MOLECULE_LLM_USAGE_TOKEN"] == "real"
    assert (made["TIER"], made["KEY"], made["HOME"], made["MOLECULE_ORG_ID"]) == ("3", "1", "/here", "org")
    assert not {"ADMIN_TOKEN", "A=B"} & made.keys()


def test_a_launch_never_prints_its_secrets() -> None:
    launch = make_launch(env={"KEY": "secret-value"})
    assert "secret-value" not in repr(launch)
    assert launch.token not in repr(launch)
