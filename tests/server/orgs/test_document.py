"""What an org.yaml may say, and what its author hears when it is wrong."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molecule_ai.provisioners.base import WorkspaceAccess
from molecule_ai.server.orgs.document import Approver, EnvRequirement, MemoryScope, Org
from molecule_ai.server.orgs.limits import MAX_DOCUMENT_BYTES, MAX_WORKSPACES
from molecule_ai.server.orgs.loader import load_directory, load_object, load_text
from molecule_ai.server.orgs.problems import InvalidOrg, Kind, OrgNotFound, Problem

RUNTIMES = frozenset({"langgraph", "claude-code"})


def org_of(nodes: str, top: str = "") -> Org:
    return load_text(f"name: Test\n{top}\nworkspaces:\n{nodes}", runtimes=RUNTIMES)


def problems_of(text: str, *, strict: bool = True) -> list[Problem]:
    with pytest.raises(InvalidOrg) as refused:
        load_text(text, runtimes=RUNTIMES, strict=strict)
    return refused.value.problems


def only_problem(text: str) -> Problem:
    (problem,) = problems_of(text)
    return problem


def write(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def directory_problem(directory: Path, files: dict[str, str]) -> Problem:
    with pytest.raises(InvalidOrg) as refused:
        load_directory(write(directory, files), runtimes=RUNTIMES)
    (problem,) = refused.value.problems
    return problem


# What a document can say


def test_every_documented_key_is_understood(tmp_path: Path) -> None:
    """The keys of the example in contract 06 §3.3, with other values."""
    text = """\
name: Quarry Works
description: Stone and paper
template_schema_version: 1
required_env:
  - DEPOT_TOKEN
  - any_of: [KEY_A, KEY_B]
recommended_env: [MAP_KEY]
global_memories:
  - content: The depot closes at five.
defaults:
  runtime: claude-code
  tier: 3
  model: sonnet
  plugins: [one, two]
  initial_prompt_file: prompts/boot.md
  idle_prompt: ""
  idle_interval_seconds: 900
  category_routing: {safety: [Warden], paper: [Clerk]}
  initial_memories: [{content: Metric units., scope: TEAM}]
workspaces:
  - name: Foreman & Co
    role: Runs the quarry
    tier: 4
    files_dir: foreman
    workspace_dir: ${QUARRY_DIR}
    workspace_access: read_write
    canvas: {x: 320, y: 40.5}
    max_concurrent_tasks: 3
    plugins: [three, "!two"]
    category_routing: {paper: []}
    secrets: {BOARD_URL: "${BOARD_URL}"}
    channels:
      - type: telegram
        config: {bot_token: "${BOT}", chat_id: 77}
        env: {proxy: PROXY_URL}
        categories: [news]
        allowed_users: ["1001", 1002]
    schedules:
      - {name: Pulse, cron_expr: "5 7 * * 1-5", timezone: Europe/Oslo, prompt_file: schedules/pulse.md}
    children:
      - !include teams/warden.yaml
      - {name: Shed, spawning: false, children: [{name: Tester}]}
      - {name: Partner, external: true, url: "https://partner.example.net/a2a"}
"""
    org = load_directory(
        write(
            tmp_path,
            {
                "org.yaml": text,
                "prompts/boot.md": "Hello\r\n",
                "foreman/schedules/pulse.md": "Report the stock.",
                "foreman/.env": "DEPOT_TOKEN='abc'\n# no\nEMPTY=\n",
                ".env": "DEPOT_TOKEN=org\nexport KEY_A=1\n",
                "teams/warden.yaml": "name: Warden\nchildren: !include ../shared/crew.yaml\n",
                "shared/crew.yaml": "- name: Guard\n",
            },
        ),
        runtimes=RUNTIMES,
    )
    foreman = org.workspaces[0]
    warden, shed, partner = foreman.children

    assert org.warnings == ()
    assert org.required_env == (EnvRequirement(("DEPOT_TOKEN",)), EnvRequirement(("KEY_A", "KEY_B")))
    assert [requirement.to_wire() for requirement in org.required_env] == [
        "DEPOT_TOKEN",
        {"any_of": ["KEY_A", "KEY_B"]},
    ]
    assert (foreman.runtime, foreman.tier, foreman.model) == ("claude-code", 4, "sonnet")
    assert foreman.initial_prompt == "Hello"
    assert (foreman.idle_prompt, foreman.idle_interval_seconds) == (None, 900)
    assert foreman.plugins == ("one", "three")
    assert foreman.category_routing == {"safety": ("Warden",)}
    assert foreman.initial_memories[0].scope is MemoryScope.TEAM
    assert foreman.workspace_access is WorkspaceAccess.READ_WRITE
    assert foreman.canvas is not None
    assert (foreman.canvas.x, foreman.canvas.y) == (320, 40.5)
    assert foreman.secrets == {"DEPOT_TOKEN": "abc", "KEY_A": "1", "BOARD_URL": "${BOARD_URL}"}
    assert foreman.schedules[0].prompt == "Report the stock."
    assert foreman.channels[0].config == {"bot_token": "${BOT}", "chat_id": "77", "proxy": "${PROXY_URL}"}
    assert foreman.channels[0].allowed_users == ("1001", "1002")
    assert warden.children[0].name == "Guard"
    assert warden.tier == 3
    assert partner.is_external
    assert partner.runtime == "external"
    assert not shed.is_spawning
    assert [workspace.name for workspace, _ in org.spawning()] == [
        "Foreman & Co",
        "Warden",
        "Guard",
        "Partner",
    ]
    assert len(list(org.walk())) == 6


def test_workspaces_may_be_a_mapping_with_short_names() -> None:
    org = load_text("org_name: Old\nroots:\n  boss: {x: 5}\n  aide: {name: The Aide, children: {hand: {}}}\n")

    assert org.name == "Old"
    assert [workspace.name for workspace in org.walk()] == ["boss", "The Aide", "hand"]
    assert org.workspaces[1].children[0].path == "roots.aide.children.hand"
    assert org.workspaces[0].canvas is not None


def test_json_objects_are_read_like_yaml() -> None:
    template = {"name": "J", "workspaces": [{"name": "A", "tier": 1, "external": False, "model": None}]}

    assert load_object(template) == load_text(json.dumps(template))


def test_anchors_and_merges_work() -> None:
    org = org_of("  - &base {name: A, tier: 3, model: m}\n  - {<<: *base, name: B}\n")

    assert [(w.name, w.tier, w.model) for w in org.workspaces] == [("A", 3, "m"), ("B", 3, "m")]


def test_numbers_and_words_are_taken_as_text_where_text_is_meant() -> None:
    org = org_of("  - {name: 007, role: yes, model: 1.50}\n")

    assert (org.workspaces[0].name, org.workspaces[0].role, org.workspaces[0].model) == ("007", "yes", "1.50")


def test_a_role_of_several_lines_becomes_one_line() -> None:
    org = org_of("  - name: A\n    role: |\n      Does this.\n      And & that.\n")

    assert org.workspaces[0].role == "Does this. And & that."


def test_a_prompt_in_place_wins_over_its_file(tmp_path: Path) -> None:
    files = {
        "org.yaml": "name: T\nworkspaces: [{name: A, initial_prompt: mine, initial_prompt_file: p.md}]",
        "p.md": "theirs",
    }
    assert load_directory(write(tmp_path, files)).workspaces[0].initial_prompt == "mine"


def test_org_yml_is_found_too(tmp_path: Path) -> None:
    write(tmp_path, {"org.yml": "name: T\nworkspaces: [{name: A}]"})

    assert load_directory(tmp_path).name == "T"


def test_a_directory_without_a_document_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(OrgNotFound):
        load_directory(tmp_path)


def test_cron_shorthands_become_five_fields() -> None:
    org = org_of(
        "  - {name: A, schedules: [{cron: '@daily', prompt: go}, {expression: ' 0  9 * * MON ', prompt: go}]}"
    )

    assert [schedule.cron_expr for schedule in org.workspaces[0].schedules] == ["0 0 * * *", "0 9 * * MON"]
    assert org.workspaces[0].schedules[0].timezone == "UTC"


def test_approval_rules_of_the_defaults_come_before_the_own_ones() -> None:
    org = org_of(
        "  - {name: A, approvals: [{action: 'pay*', approver: parent, ttl_minutes: 5, reason: money}]}",
        "defaults: {approvals: [{action: 'delete*'}]}",
    )
    first, second = org.workspaces[0].approvals

    assert (first.action, first.approver, first.ttl_minutes) == ("delete*", Approver.USER, 10)
    assert (second.action, second.approver, second.ttl_minutes) == ("pay*", Approver.PARENT, 5)
    assert second.covers("Pay the invoice")
    assert not second.covers("Repay the invoice")


def test_the_same_name_is_fine_under_different_parents() -> None:
    org = org_of("  - {name: A, children: [{name: X}]}\n  - {name: B, children: [{name: X}]}\n")

    assert len(list(org.walk())) == 4


def test_unknown_keys_are_warnings_with_a_place() -> None:
    org = org_of("  - name: A\n    modle: x\n")

    assert org.warnings == ("org:5:5: workspaces[0].modle (A): unknown key 'modle' is ignored",)


def test_a_parent_that_contradicts_the_tree_is_a_warning() -> None:
    org = org_of("  - {name: Big Boss, children: [{name: B, parent: big-boss}, {name: C, parent: B}]}\n")

    assert len(org.warnings) == 1
    assert "parent 'B'" in org.warnings[0]


def test_required_names_settle_groups_and_wishes() -> None:
    org = org_of(
        "  - {name: A, required_env: [K1, {any_of: [K1, K2]}], recommended_env: [K1, K3, 'not valid']}\n",
        "defaults: {required_env: [{any_of: [K4, K5]}]}",
    )
    assert org.required_env == (EnvRequirement(("K1",)), EnvRequirement(("K4", "K5")))
    assert org.recommended_env == (EnvRequirement(("K3",)),)
    assert len(org.warnings) == 1


# What is refused


def test_broken_yaml_names_line_and_column() -> None:
    problem = only_problem("name: T\nworkspaces:\n  - name: [\n")

    assert problem.line == 4
    assert problem.column is not None
    assert "not valid YAML" in problem.message


@pytest.mark.parametrize(
    ("node", "line", "path", "message"),
    [
        ("{name: A, runtime: cobol}", 3, "workspaces[0].runtime", "unknown runtime 'cobol'"),
        ("{name: A, tier: 5}", 3, "workspaces[0].tier", "from 1 to 4"),
        ("{name: A, tier: two}", 3, "workspaces[0].tier", "from 1 to 4"),
        ("{name: A, tier: 0x2}", 3, "workspaces[0].tier", "from 1 to 4"),
        (
            "{name: A, workspace_access: read_only}",
            3,
            "workspaces[0].workspace_access",
            "needs a workspace_dir",
        ),
        ("{name: A, workspace_dir: etc}", 3, "workspaces[0].workspace_dir", "absolute path"),
        ("{name: A, workspace_dir: /etc/x}", 3, "workspaces[0].workspace_dir", "system directory"),
        ("{name: A, workspace_dir: /a/../etc}", 3, "workspaces[0].workspace_dir", "'..'"),
        ("{name: A, workspace_dir: /}", 3, "workspaces[0].workspace_dir", "system directory"),
        ("{name: A, files_dir: a}", 3, "workspaces[0].files_dir", "organization directory"),
        (
            "{name: A, initial_prompt_file: a}",
            3,
            "workspaces[0].initial_prompt_file",
            "organization directory",
        ),
        ("{name: A, external: maybe}", 3, "workspaces[0].external", "true or false"),
        ("{name: A, external: true, url: 'ftp://x'}", 3, "workspaces[0].url", "http://"),
        ("{name: A, children: nobody}", 3, "workspaces[0].children", "list of workspaces"),
        ("{name: A, children: [nobody]}", 3, "workspaces[0].children", "must be a workspace"),
        ("{name: A, schedules: [{cron_expr: 61 * * * *, prompt: x}]}", 3, None, "invalid cron expression"),
        ("{name: A, schedules: [{cron_expr: 0 0 30 2 *, prompt: x}]}", 3, None, "never fires"),
        ("{name: A, schedules: [{cron_expr: '@reboot', prompt: x}]}", 3, None, "@reboot is not supported"),
        (
            "{name: A, schedules: [{cron_expr: '* * * * *', cron: '1 * * * *', prompt: x}]}",
            3,
            None,
            "disagree",
        ),
        ("{name: A, schedules: [{cron_expr: '* * * * *'}]}", 3, None, "has no prompt"),
        (
            "{name: A, schedules: [{cron: '* * * * *', prompt: x, timezone: Mars/Base}]}",
            3,
            None,
            "invalid timezone",
        ),
        (
            "{name: A, schedules: [{cron: '* * * * *', prompt: x, timezone: ../../etc/passwd}]}",
            3,
            None,
            "timezone",
        ),
        ("{name: A, approvals: [{approver: user}]}", 3, "workspaces[0].approvals[0]", "needs an action"),
        ("{name: A, approvals: [{action: x, approver: me}]}", 3, None, "user or parent"),
        ("{name: A, approvals: [{action: x, ttl_minutes: 0}]}", 3, None, "ttl_minutes"),
        ("{name: A, secrets: {lower: x}}", 3, "workspaces[0].secrets", "name like API_KEY"),
        ("{name: A, plugins: [../x]}", 3, "workspaces[0].plugins", "no plugin name"),
        ("{name: A, required_env: [{any_of: []}]}", 3, None, "any_of"),
        ("{name: A, initial_memories: [{content: x, scope: WORLD}]}", 3, None, "LOCAL, TEAM or GLOBAL"),
        ('{name: "A\\nB"}', 3, "workspaces[0].name", "control characters"),
        ("{role: x}", 3, "workspaces[0]", "needs a name"),
        ("{name: '  '}", 3, "workspaces[0].name", "needs a name"),
        ("{name: [a]}", 3, "workspaces[0].name", "must be text"),
    ],
)
def test_a_mistake_is_reported_with_its_place(node: str, line: int, path: str | None, message: str) -> None:
    problem = problems_of(f"name: T\nworkspaces:\n  - {node}\n")[0]

    assert problem.line == line
    assert message in problem.message
    assert problem.path.startswith(path or "workspaces[0].")
    assert problem.role == ("A" if "name: A" in node else "")


def test_all_mistakes_are_reported_at_once() -> None:
    found = problems_of("name: T\nworkspaces:\n  - {name: A, tier: 9}\n  - {name: B, runtime: cobol}\n")

    assert [(problem.line, problem.role) for problem in found] == [(3, "A"), (4, "B")]


def test_a_name_may_stand_once_among_siblings() -> None:
    problem = only_problem(
        "name: T\nworkspaces:\n  - name: A\n    children:\n      - name: X\n      - name: X\n"
    )

    assert "named 'X'" in problem.message
    assert "first is on line 5" in problem.message
    assert (problem.line, problem.path) == (6, "workspaces[0].children[1].name")


def test_a_key_may_stand_once_in_a_mapping() -> None:
    problem = only_problem("name: T\nworkspaces:\n  - name: A\n    name: B\n")

    assert problem.message == "the key 'name' occurs twice"
    assert problem.line == 4


def test_names_and_roles_have_a_length() -> None:
    assert "at most 255" in only_problem(f"name: T\nworkspaces: [{{name: {'a' * 256}}}]").message
    assert "at most 8000" in only_problem(f"name: T\nworkspaces: [{{name: A, role: {'a' * 8001}}}]").message


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "just words", "name: T\n--- \nname: U\n"])
def test_what_is_no_organization_is_refused(text: str) -> None:
    assert len(problems_of(text)) == 1


def test_an_organization_needs_a_name_and_a_workspace() -> None:
    messages = [problem.message for problem in problems_of("description: x\nworkspaces: []\n")]

    assert messages == ["an organization needs a name", "an organization needs at least one workspace"]


def test_a_newer_schema_is_refused() -> None:
    assert "newer" in only_problem("name: T\ntemplate_schema_version: 2\nworkspaces: [{name: A}]").message


def test_a_lenient_reading_leaves_out_what_cannot_be_used() -> None:
    text = "name: T\nworkspaces: [{name: A, schedules: [{name: S, cron_expr: bad, prompt: x}]}]"
    org = load_text(text, strict=False)

    assert org.workspaces[0].schedules == ()
    assert "invalid cron expression" in org.warnings[0]
    assert only_problem(text).kind is Kind.ITEM


def test_a_lenient_reading_still_refuses_a_wrong_approval_rule() -> None:
    assert problems_of("name: T\nworkspaces: [{name: A, approvals: [{}]}]", strict=False)


def test_no_message_holds_a_secret() -> None:
    found = problems_of("name: T\nworkspaces: [{name: A, secrets: {bad-name: hush-hush, OK: [hush-hush]}}]")

    assert all("hush-hush" not in str(problem) for problem in found)


# What must not exhaust the server


def test_a_document_of_ten_megabytes_is_refused(tmp_path: Path) -> None:
    text = "name: T\nworkspaces: [{name: A}]\n" + "# padding\n" * 1_000_000

    assert len(text) > MAX_DOCUMENT_BYTES
    assert "larger than" in only_problem(text).message
    assert "larger than" in directory_problem(tmp_path, {"org.yaml": text}).message


def test_the_limit_counts_all_included_files_together(tmp_path: Path) -> None:
    part = "name: P\n" + "# padding\n" * 300_000
    files = {
        "org.yaml": "name: T\nworkspaces: [!include a.yaml, !include b.yaml]",
        "a.yaml": part,
        "b.yaml": part,
    }

    assert "larger than" in directory_problem(tmp_path, files).message


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused(opening: str) -> None:
    assert (
        "levels deep"
        in only_problem("name: T\nworkspaces: " + "\n" * (opening == "- ") + opening * 5_000).message
    )


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]

    assert "more than 100,000 values" in only_problem("\n".join(lines)).message


def test_a_chain_of_aliases_is_refused_when_it_is_deep() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 3_000)]

    assert "levels deep" in only_problem("\n".join(lines)).message


def test_an_alias_to_itself_is_refused() -> None:
    assert "contains it" in only_problem("name: T\nworkspaces: &w [{name: A, children: *w}]").message


def test_a_deep_org_chart_is_refused() -> None:
    node = "{name: A}"
    for _ in range(16):
        node = f"{{name: A, children: [{node}]}}"

    assert "16 levels deep" in only_problem(f"name: T\nworkspaces: [{node}]").message


def test_too_many_workspaces_are_refused() -> None:
    nodes = "".join(f"  - name: A{n}\n" for n in range(MAX_WORKSPACES + 1))

    assert "workspaces" in only_problem(f"name: T\nworkspaces:\n{nodes}").message


def test_problems_stop_at_a_readable_number() -> None:
    nodes = "".join(f"  - {{name: A{n}, tier: 9}}\n" for n in range(500))

    assert len(problems_of(f"name: T\nworkspaces:\n{nodes}")) == 100


@pytest.mark.parametrize(
    "text", ["name: \x07", "name: \ud800", "\x00", "name: !!python/object:os.system x", "name: !x y"]
)
def test_text_that_is_no_yaml_of_ours_is_refused(text: str) -> None:
    assert problems_of(text)


# Files


@pytest.mark.parametrize(
    "path", ["../outside.yaml", "/etc/passwd", "a/../../outside.yaml", "link.yaml", "''", "~/x"]
)
def test_an_include_cannot_leave_the_directory(tmp_path: Path, path: str) -> None:
    write(tmp_path, {"outside.yaml": "name: stolen"})
    root = tmp_path / "org"
    root.mkdir()
    (root / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    problem = directory_problem(root, {"org.yaml": f"name: T\nworkspaces:\n  - !include {path}\n"})

    assert problem.kind is Kind.EXPANSION
    assert problem.line == 3
    assert str(tmp_path) not in problem.message


def test_the_document_itself_cannot_lie_outside(tmp_path: Path) -> None:
    write(tmp_path, {"outside.yaml": "name: T\nworkspaces: [{name: A}]"})
    root = tmp_path / "org"
    root.mkdir()
    (root / "org.yaml").symlink_to(tmp_path / "outside.yaml")

    assert "leaves the directory" in directory_problem(root, {}).message


def test_includes_in_a_circle_name_the_circle(tmp_path: Path) -> None:
    files = {
        "org.yaml": "name: T\nworkspaces: [!include teams/a.yaml]",
        "teams/a.yaml": "name: A\nchildren:\n  - !include b.yaml\n",
        "teams/b.yaml": "name: B\nchildren: [!include ../teams/a.yaml]\n",
    }
    problem = directory_problem(tmp_path, files)

    assert problem.message == "!include runs in a circle: teams/a.yaml -> teams/b.yaml -> teams/a.yaml"
    assert (problem.file, problem.line) == ("teams/b.yaml", 2)


def test_one_file_may_be_included_twice(tmp_path: Path) -> None:
    files = {
        "org.yaml": (
            "name: T\nworkspaces:\n"
            "  - {name: A, children: [!include x.yaml]}\n"
            "  - {name: B, children: [!include x.yaml]}\n"
        ),
        "x.yaml": "name: X",
    }
    assert len(list(load_directory(write(tmp_path, files)).walk())) == 4


def test_a_missing_include_names_the_file(tmp_path: Path) -> None:
    problem = directory_problem(
        tmp_path, {"org.yaml": "name: T\nworkspaces:\n  - !include teams/nobody.yaml\n"}
    )

    assert (problem.file, problem.line) == ("org.yaml", 3)
    assert "'teams/nobody.yaml'" in problem.message


def test_a_mistake_in_an_included_file_names_that_file(tmp_path: Path) -> None:
    files = {"org.yaml": "name: T\nworkspaces: [!include a.yaml]", "a.yaml": "name: A\ntier: 9\n"}
    problem = directory_problem(tmp_path, files)

    assert (problem.file, problem.line, problem.role) == ("a.yaml", 2, "A")


def test_includes_nest_only_so_deep(tmp_path: Path) -> None:
    files = {f"f{n}.yaml": f"!include f{n + 1}.yaml" for n in range(30)}
    problem = directory_problem(tmp_path, {"org.yaml": "!include f0.yaml", **files, "f30.yaml": "name: T"})

    assert "16 deep" in problem.message


def test_prompt_files_cannot_leave_the_directory_even_in_a_lenient_reading(tmp_path: Path) -> None:
    write(tmp_path, {"secret.txt": "hidden"})
    node = "{name: A, files_dir: a, initial_prompt_file: ../../secret.txt}"
    root = write(tmp_path / "org", {"org.yaml": f"name: T\nworkspaces: [{node}]", "a/x.md": ""})

    with pytest.raises(InvalidOrg, match="leaves the directory"):
        load_directory(root, strict=False)


def test_a_missing_prompt_file_falls_back_to_the_defaults(tmp_path: Path) -> None:
    text = "name: T\ndefaults: {initial_prompt: hello}\nworkspaces: [{name: A, initial_prompt_file: gone.md}]"
    org = load_directory(write(tmp_path, {"org.yaml": text}), strict=False)

    assert org.workspaces[0].initial_prompt == "hello"
    assert "gone.md" in org.warnings[0]


@pytest.mark.parametrize("tag", ["!include x.yaml", "!external {repo: a/b, ref: v1, path: x.yaml}"])
def test_inline_text_can_refer_to_no_files(tag: str) -> None:
    problem = only_problem(f"name: T\nworkspaces:\n  - {tag}\n")

    assert problem.kind is Kind.EXPANSION
    with pytest.raises(InvalidOrg) as refused:
        load_text(f"name: T\nworkspaces:\n  - {tag}\n")
    assert refused.value.title == "org template expansion failed"


def test_external_names_the_setting_that_allows_it() -> None:
    assert "MOLECULE_EXTERNAL_REPO_ALLOWLIST" in only_problem("name: T\nworkspaces: [!external {}]").message


# Whatever comes

KEYS = [
    *("name", "org_name", "workspaces", "roots", "children", "defaults", "role", "tier", "runtime", "model"),
    *("schedules", "cron_expr", "timezone", "prompt", "channels", "config", "approvals", "action", "plugins"),
    *("required_env", "any_of", "initial_memories", "content", "scope", "canvas", "x", "y", "secrets", "url"),
    *("category_routing", "workspace_dir", "files_dir", "external", "spawning", "initial_prompt_file"),
]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(KEYS)
)
OBJECTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=30,
)


@given(OBJECTS, st.booleans())
def test_any_object_is_an_organization_or_refused(template: object, strict: bool) -> None:
    with suppress(InvalidOrg):
        load_object(template, runtimes=RUNTIMES, strict=strict)


@given(st.text(alphabet="name:workspc[]{}-!&*<|>#\"'\n\t %@,?", max_size=60))
def test_any_text_is_an_organization_or_refused(text: str) -> None:
    with suppress(InvalidOrg):
        load_text(f"name: T\nworkspaces:\n  - name: A\n{text}")
