"""What heartbeats say, what is redacted, and which token is used."""

import pytest

from molecule_ai.runtime.credentials import Credentials
from molecule_ai.runtime.messages import incoming_from
from molecule_ai.runtime.redact import Redactor
from molecule_ai.runtime.state import AgentState


@pytest.fixture
def state():
    return AgentState(Redactor(["canary-value"]))


def test_error_rate_counts_since_the_last_beat(state):
    for index in range(4):
        state.begin(f"t{index}", "x")
        state.end(f"t{index}", "boom" if index == 0 else "")
    beat = state.beat()
    assert (beat["error_rate"], beat["sample_error"], beat["runtime_state"]) == (0.25, "boom", "ok")
    assert (state.beat()["error_rate"], state.beat()["sample_error"]) == (0.0, "")


def test_wedged_keeps_its_first_reason(state):
    state.mark_wedged("first")
    state.mark_wedged("second")
    beat = state.beat()
    assert (beat["runtime_state"], beat["sample_error"]) == ("wedged", "first")


def test_a_burst_is_told_by_its_latest_changes(state):
    for index in range(50):
        state.begin(f"t{index}", "x")
        state.end(f"t{index}")
    pushes = state.take_pushes()
    assert [push["active_tasks"] for push in pushes] == [1, 0, 1, 0]
    assert state.take_pushes() == []


def test_the_current_task_is_short_and_redacted(state):
    state.begin("t", "canary-value " + "x" * 1000)
    assert len(state.current_task) == 256
    assert "canary" not in state.current_task
    assert state.active_tasks == 1


def test_the_transcript_is_bounded_and_pages(state):
    for index in range(250):
        state.say("user", str(index))
    lines, cursor, more = state.transcript(0, 10)
    assert ([lines[0].index, lines[-1].index], cursor, more) == ([50, 59], 60, True)
    lines, cursor, more = state.transcript(245, 100)
    assert (len(lines), cursor, more) == (5, 250, False)
    assert state.transcript(999, 10) == ([], 999, False)


@pytest.mark.parametrize(
    "secret",
    [
        "OPENAI_API_KEY=abc123",
        "Authorization: Bearer abc.def",
        "sk-abcdefghijklmnop1234",
        "ghp_abcdefghijklmnop1234",
        "AKIAABCDEFGHIJKLMNOP",
        "postgres://user:hunter22@db/x",
        "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----",
    ],
)
def test_what_looks_like_a_secret_goes(secret):
    redacted = Redactor()(f"see {secret} here")
    assert secret not in redacted
    assert "[REDACTED:" in redacted
    assert redacted.startswith("see ")


def test_values_of_secret_variables_go_and_short_ones_stay():
    redact = Redactor.from_environment(
        {"DB_PASSWORD": "correct-horse", "PIN_KEY": "1234", "HOME": "/home/somebody"}
    )
    assert redact("correct-horse 1234 /home/somebody") == "[REDACTED:SECRET] 1234 /home/somebody"


def test_the_file_wins_and_a_refused_token_is_replaced(tmp_path):
    assert Credentials(tmp_path, "from-env").token == "from-env"
    (tmp_path / ".auth_token").write_text("from-file\n")
    credentials = Credentials(tmp_path, "from-env")
    assert credentials.token == "from-file"
    assert credentials.refresh("from-file")
    assert credentials.token == "from-env"
    assert not credentials.refresh("from-env")
    (tmp_path / ".auth_token").write_text("rotated")
    assert credentials.refresh("from-env")
    assert credentials.token == "rotated"


def test_nothing_is_accepted_without_a_token(tmp_path):
    credentials = Credentials(tmp_path, "")
    assert not credentials.accepts("Bearer ")
    assert not credentials.accepts("")


def test_parts_of_both_versions_are_read():
    params = {
        "message": {
            "messageId": "m",
            "parts": [
                {"kind": "text", "text": "a"},
                {"type": "text", "text": "b"},
                {"text": "c"},
                {"kind": "file", "file": {"name": "f.pdf", "uri": "workspace:f.pdf"}},
                {"url": "https://x/y", "filename": "y"},
                {"data": {"n": 1}},
                7,
            ],
            "metadata": {"molecule": {"depth": 1}, "both": "inner"},
        },
        "metadata": {"both": "outer", "history": [{"role": "agent", "parts": [{"text": "earlier"}]}, 3]},
    }
    message = incoming_from(params, task_id="t", context_id="c")
    assert message.text == "a\nb\nc\n[attached: f.pdf workspace:f.pdf]\n[attached: y https://x/y]"
    assert message.molecule == {"depth": 1}
    assert message.metadata["both"] == "inner"
    assert [(turn.role, turn.text) for turn in message.history] == [("agent", "earlier"), ("user", "")]


def test_strange_params_are_an_empty_message():
    message = incoming_from({"message": [], "metadata": 3}, task_id="t", context_id="c")
    assert (message.text, message.message_id, message.molecule, message.history) == ("", "", None, ())
