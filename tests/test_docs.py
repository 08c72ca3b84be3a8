from pathlib import Path

from molecule_ai.server import settings_page

ROOT = Path(__file__).parents[1]


def test_the_configuration_page_names_every_setting_as_it_is() -> None:
    page = settings_page.render()
    assert (ROOT / "docs" / "configuration.md").read_text() == page, "run: make openapi"
    undescribed = [row for row in page.splitlines() if row.startswith("| `") and row.endswith("|  |")]
    assert undescribed == []
