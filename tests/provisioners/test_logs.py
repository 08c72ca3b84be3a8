from __future__ import annotations

import os
from pathlib import Path

from molecule_ai.provisioners.local import logs


def test_a_log_that_grew_is_set_aside_and_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "agent.log"
    writer = logs.open_for_agent(log)
    os.write(writer, b"old " * 30)
    assert logs.rotate([log, tmp_path / "missing.log"], max_bytes=100) == 1
    os.write(writer, b"new")
    os.close(writer)
    assert log.read_bytes() == b"new"
    assert (tmp_path / "agent.log.1").read_bytes() == b"old " * 30
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert logs.rotate([log], max_bytes=100) == 0


def test_the_tail_goes_back_into_the_part_that_was_set_aside(tmp_path: Path) -> None:
    log = tmp_path / "agent.log"
    log.write_text("new")
    (tmp_path / "agent.log.1").write_text("older")
    assert logs.tail(log, 3) == "new"
    assert logs.tail(log, 5) == "ernew"
    assert logs.tail(log, 100) == "oldernew"
    assert logs.tail(tmp_path / "none.log", 10) == ""


def test_a_tail_that_begins_inside_a_character_is_still_text(tmp_path: Path) -> None:
    log = tmp_path / "agent.log"
    log.write_text("ü!")
    assert logs.tail(log, 2) == "\ufffd!"
