"""What the documents say is so: settings, guarantees and shortfalls point at what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import report
from molecule_ai.server import settings_page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# `tests/a/test_b.py::test_c`; a following `::test_d` is in the same file.
_TEST = re.compile(r"`((?:tests/[\w/]+\.py)?)::(\w+)`")
_DECISION = re.compile(r"\]\((\.\./decisions/\d{4}-[\w-]+\.md)\)")


def absent_tests(text: str) -> list[str]:
    """The tests that `text` names and nobody wrote."""
    absent, file = [], ""
    for path, function in _TEST.findall(text):
        file = path or file
        source = (ROOT / file).read_text() if (ROOT / file).is_file() else ""
        if not re.search(rf"def {function}\(", source):
            absent.append(f"{file}::{function}")
    return absent


def table_rows(page: Path) -> list[list[str]]:
    """The cells of each row of a page's tables, headings left out."""
    lines = page.read_text().splitlines()
    rows = []
    for before, line in zip(["", *lines], lines, strict=False):
        is_heading = line.startswith("|") and not before.startswith("|")
        if line.startswith("| ") and not is_heading:
            rows.append([cell.strip() for cell in line.strip().strip("|").split(" | ")])
    return rows


def test_the_configuration_page_names_every_setting_as_it_is() -> None:
    page = settings_page.render()
    assert (DOCS / "configuration.md").read_text() == page, "run: make openapi"
    undescribed = [row for row in page.splitlines() if row.startswith("| `") and row.endswith("|  |")]
    assert undescribed == []


def test_each_guarantee_names_tests_that_exist() -> None:
    rows = table_rows(DOCS / "guarantees.md")
    assert rows
    for row in rows:
        text = " | ".join(row)
        assert _TEST.search(text), f"no test named in: {text}"
        assert absent_tests(text) == []


@pytest.mark.parametrize(
    "page", sorted(DOCS.glob("reference/shortfalls-*.md")), ids=lambda page: str(page.stem)
)
def test_each_shortfall_is_answered_by_a_test_or_a_decision(page: Path) -> None:
    """Rows are `| number | what falls short | what ours does | proof |`, numbered from 1 without a gap."""
    rows = table_rows(page)
    assert [row[0] for row in rows] == [str(number) for number in range(1, len(rows) + 1)]
    unanswered = []
    for number, _, _, proof in rows:
        decisions = _DECISION.findall(proof)
        gone = [link for link in decisions if not (page.parent / link).is_file()]
        if not (decisions or _TEST.search(proof)) or gone or absent_tests(proof):
            unanswered.append((number, gone, absent_tests(proof)))
    assert unanswered == []


def test_the_measured_figures_stand_beside_their_targets() -> None:
    assert report.is_current(), "run: .venv/bin/python -m bench --table"
