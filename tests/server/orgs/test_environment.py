"""References and `.env` files."""

from molecule_ai.server.orgs.document import EnvRequirement
from molecule_ai.server.orgs.environment import expand, parse_env, references, unmet


def test_references_are_names_not_amounts() -> None:
    assert references("${A}/$B for $5 and $$") == ["A", "B"]


def test_expanding_names_what_is_missing() -> None:
    assert expand("${A}-$B-${C}", {"A": "1", "B": ""}) == ("1--", ["B", "C"])


def test_a_value_is_not_expanded_twice() -> None:
    assert expand("$A", {"A": "$B", "B": "x"}) == ("$B", [])


def test_an_env_file_gives_its_pairs() -> None:
    text = "# c\nA=1\nB = 'two words'\nC=\"x=y\"\nlower=no\nD=\nexport E=5\nnonsense\nF='\n"

    assert parse_env(text) == {"A": "1", "B": "two words", "C": "x=y", "E": "5", "F": "'"}


def test_a_group_is_met_by_any_of_its_names() -> None:
    both = [EnvRequirement(("A",)), EnvRequirement(("B", "C"))]

    assert unmet(both, ["C"]) == [EnvRequirement(("A",))]
