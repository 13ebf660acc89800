"""What tests share: fixtures live in plugin modules, each named for what it gives."""

from __future__ import annotations

import os

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # What the tests themselves run is measured. To measure the processes that they start, too, took a third of the whole time. What runs
    # only there (the supervisor, the demo) counts as not covered.
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)

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
