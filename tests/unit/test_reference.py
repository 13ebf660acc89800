from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from worker.documents import ResourceDocument
from worker.reference import ROOT, commands_page, pages, settings_table, with_table
from worker.settings import SECRETS, Settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("path", sorted(pages()), ids=lambda path: path.name)
def test_a_page_says_what_the_code_says(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == pages()[path], "run: python -m worker.reference"


def test_every_setting_stands_in_the_table_once() -> None:
    table = settings_table()
    for name in Settings.model_fields:
        assert table.count(f"| `ROLLOVER_{name.upper()}` |") == 1
    assert table.count("| secret |") == len(SECRETS)


def test_every_setting_and_every_key_has_a_meaning() -> None:
    for page in pages().values():
        assert "| | |" not in page
        assert not any(line.endswith("|  |") for line in page.splitlines())


def test_the_table_takes_its_place_in_another_page() -> None:
    text = "before\n<!-- settings -->\nold\n<!-- end of settings -->\nafter\n"
    put = with_table(text)
    assert put.startswith("before\n<!-- settings -->\n| variable |")
    assert put.endswith("|\n<!-- end of settings -->\nafter\n")
    assert with_table(put) == put
    assert with_table("nothing") == "nothing"


def test_keys_without_a_default_are_required() -> None:
    page = next(text for path, text in pages().items() if path.name == "resource-file.md")
    for name, field in ResourceDocument.model_fields.items():
        if field.is_required() and name != "database":
            assert f"| `{name}` |" in page
    assert "| `owns_all_secrets` | `true` or `false` | required |" in page
    assert "| `grace` | duration | `1d` |" in page
    assert "| `sslmode` | `verify-full` or `verify-ca` or `require` or `disable` | `verify-full` |" in page


def test_every_command_is_told_with_its_options() -> None:
    page = commands_page()
    for command in ("rollover up", "rollover resource adopt", "rollover sandbox rehearse"):
        assert page.count(f" {command}\n") == 1
    assert "`rollover rotate RESOURCE [OPTIONS]`" in page
    assert "| `--grace DURATION` |" in page
    assert "| `--limit NUMBER` |" in page
    assert "--dies-with" not in page


@pytest.mark.parametrize(
    "page", sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]), ids=lambda path: path.name
)
def test_a_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
