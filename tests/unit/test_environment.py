"""How the environment is made, added to and made anew; without installing anything."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from tools import environment

RUNTIME, DEV = environment.LAYERS["runtime"], environment.LAYERS["dev"]


class Installation:
    """Stands for venv and pip: keeps what was asked of them."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fails_at: str | None = None

    def create(self) -> None:
        self.done.append("create")
        environment.ENVIRONMENT.mkdir(exist_ok=True)
        environment.MADE_OF.unlink(missing_ok=True)

    def pip(self, *arguments: str) -> None:
        if arguments[-1] == self.fails_at:
            raise KeyboardInterrupt
        self.done.append(arguments[-1])

    def asked(self) -> list[str]:
        done, self.done = self.done, []
        return done


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    monkeypatch.chdir(tmp_path)
    for name in ("requirements.lock", "requirements-dev.lock", "pyproject.toml"):
        Path(name).write_text(name, encoding="utf-8")
    installation = Installation()
    monkeypatch.setattr(environment, "create", installation.create)
    monkeypatch.setattr(environment, "pip", installation.pip)
    return installation


def test_a_first_run_installs_and_a_second_one_does_nothing(installation: Installation) -> None:
    environment.make(RUNTIME)
    assert installation.asked() == ["create", "requirements.lock", "."]
    environment.make(RUNTIME)
    assert installation.asked() == []


def test_the_development_layer_is_added_and_the_other_one_stays(installation: Installation) -> None:
    environment.make(RUNTIME)
    installation.asked()
    environment.make(DEV)
    assert installation.asked() == ["requirements-dev.lock", "."]
    environment.make(RUNTIME)
    assert installation.asked() == []


@pytest.mark.parametrize("lock", DEV)
def test_a_changed_lock_makes_everything_anew(installation: Installation, lock: str) -> None:
    environment.make(DEV)
    installation.asked()
    Path(lock).write_text("changed", encoding="utf-8")
    environment.make(DEV)
    assert installation.asked() == ["create", *DEV, "."]


def test_a_changed_development_lock_is_nothing_to_the_demo(installation: Installation) -> None:
    environment.make(DEV)
    installation.asked()
    Path("requirements-dev.lock").write_text("changed", encoding="utf-8")
    environment.make(RUNTIME)
    assert installation.asked() == []


def test_a_changed_project_is_installed_again_alone(installation: Installation) -> None:
    environment.make(RUNTIME)
    installation.asked()
    Path("pyproject.toml").write_text("changed", encoding="utf-8")
    environment.make(RUNTIME)
    assert installation.asked() == ["."]


def test_another_python_makes_everything_anew(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    environment.make(RUNTIME)
    installation.asked()
    monkeypatch.setattr(sys, "version", "3.12.1")
    environment.make(RUNTIME)
    assert installation.asked() == ["create", "requirements.lock", "."]


def test_a_copy_of_the_directory_makes_its_own(installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment.make(RUNTIME)
    installation.asked()
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    monkeypatch.chdir(moved)
    environment.make(RUNTIME)
    assert installation.asked() == ["create", "requirements.lock", "."]


@pytest.mark.parametrize("at", ["requirements.lock", "requirements-dev.lock", "."])
def test_an_interrupted_installation_is_begun_again(installation: Installation, at: str) -> None:
    installation.fails_at = at
    with pytest.raises(KeyboardInterrupt):
        environment.make(DEV)
    installation.asked()
    installation.fails_at = None
    environment.make(DEV)
    assert installation.asked() == ["create", *DEV, "."]
    assert environment.UNFINISHED not in environment.read_record()


def test_an_interrupted_development_layer_leaves_the_demo_working(installation: Installation) -> None:
    environment.make(RUNTIME)
    installation.fails_at = "requirements-dev.lock"
    with pytest.raises(KeyboardInterrupt):
        environment.make(DEV)
    installation.asked()
    environment.make(RUNTIME)
    assert installation.asked() == []


def test_an_environment_that_somebody_else_made_is_made_anew(installation: Installation) -> None:
    environment.ENVIRONMENT.mkdir()
    environment.MADE_OF.write_text(json.dumps("?")[:-1], encoding="utf-8")
    environment.make(RUNTIME)
    assert installation.asked() == ["create", "requirements.lock", "."]


@pytest.mark.parametrize("name", ["co:lon", "ta\tb", "new\nline", "space at the end ", "no\udcffutf"])
def test_a_directory_that_python_cannot_use_is_named(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "requirements.lock").touch()
    monkeypatch.chdir(tmp_path / name)
    with pytest.raises(SystemExit, match="rename"):
        environment.make(RUNTIME)
    assert installation.asked() == []


@pytest.mark.parametrize("name", ["a b", "it's", 'quo"te', "per%cent", "hash#", "dol$lar", "umläut", "back\\slash"])
def test_any_other_directory_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    assert environment.obstacle() is None


def test_where_the_user_may_not_write_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    assert "cp -R" in (environment.obstacle() or "")


def test_a_python_without_ensurepip_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "apt install python3" in (environment.obstacle() or "")
