"""What can be said of docker-compose.yml and Dockerfile without a Docker engine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
import yaml

from worker.settings import load

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if service["image"] == "rollover")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
EXAMPLES = {
    "store_url": "postgresql://rollover:example@postgres/rollover",
    "broker_url": "redis://:example@redis:6379/0",
    "audit_key": "an example that is long enough to be a key",
}

every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())


def test_the_file_is_what_the_compose_specification_allows() -> None:
    # The specification's own schema, compose-spec/compose-spec at 170098b, under the Apache License 2.0.
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text(encoding="utf-8"))
    fastjsonschema.validate(schema, COMPOSE, use_default=False)


@pytest.mark.parametrize("name", OURS)
def test_the_settings_accept_every_variable_of_our_services(name: str, tmp_path: Path) -> None:
    ours = {key: value for key, value in SERVICES[name]["environment"].items() if key.startswith("ROLLOVER_")}
    for key, value in ours.items():
        secret = Path(value).name
        if key.endswith("_FILE"):
            (tmp_path / secret).write_text(EXAMPLES.get(secret, "example"), encoding="utf-8")
            ours[key] = str(tmp_path / secret)
    settings = load(ours | image_variables())
    assert settings.broker_url is not None or name == "migrate"


def test_our_services_are_the_processes_and_flower() -> None:
    assert OURS == ["beat", "flower", "migrate", "urgent-worker", "worker"]


@every_service
def test_no_password_stands_in_the_file(service: dict[str, Any]) -> None:
    for name, value in service.get("environment", {}).items():
        secret = re.search("PASSWORD|URL|KEY|SECRET|TOKEN", name)
        assert not secret or (name.endswith("_FILE") and value.startswith("/run/secrets/"))
    assert "://" not in " ".join([*service.get("command", []), *service.get("entrypoint", [])])


@every_service
def test_a_service_is_given_the_secrets_that_it_names_and_no_others(service: dict[str, Any]) -> None:
    assert set(re.findall(r"/run/secrets/(\w+)", json.dumps(service))) == set(service["secrets"])


def test_every_secret_is_a_file_that_neither_git_nor_the_image_sees() -> None:
    assert {secret["file"] for secret in COMPOSE["secrets"].values()} == {f"./secrets/{name}" for name in COMPOSE["secrets"]}
    assert "/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "!secrets" not in (ROOT / ".dockerignore").read_text(encoding="utf-8")


def test_only_flower_is_published_and_only_on_this_host() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"flower": ["127.0.0.1:5555:5555"]}


@every_service
def test_nothing_can_change_its_own_files_or_gain_rights(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert "no-new-privileges:true" in service["security_opt"]


@every_service
def test_a_service_comes_back_after_it_died(service: dict[str, Any]) -> None:
    assert service["restart"] in {"unless-stopped", "on-failure"}


def test_nothing_starts_before_what_it_needs_is_healthy() -> None:
    for service in SERVICES.values():
        for needed, how in service.get("depends_on", {}).items():
            healthy = "healthcheck" in SERVICES[needed]
            assert how == {"condition": "service_healthy" if healthy else "service_completed_successfully"}


def test_the_broker_asks_for_a_password_and_evicts_nothing() -> None:
    command = SERVICES["redis"]["command"]
    assert command[:2] == ["redis-server", "/run/secrets/redis_conf"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_a_worker_may_end_its_longest_step_before_it_is_killed() -> None:
    settings = load({"ROLLOVER_DATA_DIR": "/nonexistent"})
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) > settings.claim_seconds > settings.call_deadline_seconds


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]


def test_the_image_installs_nothing_without_a_hash() -> None:
    installs = re.findall(r"install (.+)$", DOCKERFILE, re.MULTILINE)
    assert len(installs) == 3
    assert all("--require-hashes" in install or "--no-index" in install for install in installs)


def test_the_image_is_built_from_files_that_exist_and_are_not_ignored() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    copied = {source for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for source in line.split()[:-1]}
    assert copied == let_in
    assert [name for name in copied if not (ROOT / name).exists()] == []


def image_variables() -> dict[str, str]:
    """The variables that the image itself sets for our settings."""
    return dict(re.findall(r"(ROLLOVER_\w+)=(\S+)", DOCKERFILE))
