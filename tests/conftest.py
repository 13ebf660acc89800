"""What tests share: fixtures live in plugin modules, each named for what it gives."""

from __future__ import annotations

import pytest

# An assertion in these tells its values as one in a test does.
pytest.register_assert_rewrite("tests.promises", "tests.rigs")

pytest_plugins = [
    "tests.certificates",
    "tests.command_line",
    "tests.postgresql_servers",
    "tests.sql_stores",
    "tests.store_benches",
    "tests.valkey_servers",
]
