from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import given
from hypothesis import settings as run_with
from hypothesis import strategies as st
from pydantic import ValidationError

from rotation.errors import Fault, Invalid
from rotation.sensitive import Sensitive
from rotation.states import PushBy
from worker.addresses import BROKERS, masked_address
from worker.settings import SECRETS, LogFormat, LogLevel, Settings, load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

unhurried = run_with(deadline=None)  # a busy machine is no fault

CANARY = "CANARYqT7x"
HOME = {"HOME": "/home/somebody"}
ON_POSTGRESQL = {
    "ROLLOVER_STORE_URL": f"postgresql://me:{CANARY}@db.example.com/rollover",
    "ROLLOVER_KEYS": f'{{"keys": "{CANARY}"}}',
    "ROLLOVER_AUDIT_KEY": f"{CANARY}-and-twenty-two-more-letters",
}


def faults(environ: Mapping[str, str]) -> dict[str, Fault]:
    with pytest.raises(Invalid) as refusal:
        load(HOME | dict(environ))
    assert CANARY not in str(refusal.value)
    assert CANARY not in repr(refusal.value)
    return {fault.field: fault for fault in refusal.value.faults}


def test_nothing_set_is_one_machine_with_everything_embedded() -> None:
    settings = load(HOME)
    assert str(settings.data_dir) == "/home/somebody/.local/state/rollover"
    assert settings.store.render_as_string() == "sqlite+pysqlite:////home/somebody/.local/state/rollover/rollover.db"
    assert settings.broker_url is None
    assert str(settings.keys_path) == "/home/somebody/.local/state/rollover/rollover.keys"
    assert settings.vercel_api_url == "https://api.vercel.com"
    assert settings.vercel_endpoint is PushBy.RESOURCE
    assert not settings.store_is_shared


def test_the_state_directory_of_the_desktop_rules_is_used() -> None:
    assert str(load(HOME | {"XDG_STATE_HOME": "/state"}).data_dir) == "/state/rollover"


def test_a_relative_state_directory_does_not_count() -> None:
    assert str(load(HOME | {"XDG_STATE_HOME": "state"}).data_dir) == "/home/somebody/.local/state/rollover"


def test_without_a_home_the_password_database_is_asked() -> None:
    assert load({}).data_dir.is_absolute()


def test_every_setting_can_be_set() -> None:
    settings = load(
        ON_POSTGRESQL
        | {
            "ROLLOVER_BROKER_URL": f"rediss://:{CANARY}@broker.example.com:6380/1",
            "ROLLOVER_DATA_DIR": "/var/lib/rollover",
            "ROLLOVER_VERCEL_API_URL": "http://127.0.0.1:4000/",
            "ROLLOVER_VERCEL_ENDPOINT": "product",
            "ROLLOVER_VERCEL_DEFAULT_GRACE": "2h",
            "ROLLOVER_TICK_SECONDS": "1",
            "ROLLOVER_CLAIM_SECONDS": "40",
            "ROLLOVER_CALL_DEADLINE_SECONDS": "10",
            "ROLLOVER_SERVER_ALLOWANCE_SECONDS": "0",
            "ROLLOVER_LOG_FORMAT": "json",
            "ROLLOVER_LOG_LEVEL": "debug",
            "ROLLOVER_ALLOW_PRIVATE_HOSTS": "true",
        },
    )
    assert settings.store.drivername == "postgresql+psycopg"
    assert settings.store.password == CANARY
    assert settings.store_is_shared
    assert settings.broker_url == Sensitive(f"rediss://:{CANARY}@broker.example.com:6380/1")
    assert settings.vercel_api_url == "http://127.0.0.1:4000"
    assert settings.vercel_endpoint is PushBy.PRODUCT
    assert settings.vercel_default_grace == timedelta(hours=2)
    assert settings.log_format is LogFormat.JSON
    assert settings.log_level is LogLevel.DEBUG
    assert settings.allow_private_hosts
    terms = settings.terms()
    assert (terms.claim, terms.call_deadline, terms.server_allowance) == (timedelta(seconds=40), timedelta(seconds=10), timedelta(0))


def test_only_what_was_handed_over_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLOVER_TICK_SECONDS", "7")
    assert load(HOME).tick_seconds == 5


def test_the_secrets_are_exactly_those_of_the_type_that_hides() -> None:
    hidden = {name for name, field in Settings.model_fields.items() if "Sensitive" in repr((field.annotation, get_args(field.annotation)))}
    assert hidden == SECRETS


@pytest.mark.parametrize(("written", "read"), [("x\n", "x"), ("x\r\n", "x"), ("x", "x"), ("x\n\n", "x\n"), (" x", " x")])
def test_one_line_end_of_a_secret_file_is_left_out(tmp_path: Path, written: str, read: str) -> None:
    secret = tmp_path / "keys"
    secret.write_bytes(written.encode())
    settings = load(HOME | {"ROLLOVER_KEYS_FILE": str(secret)})
    assert settings.keys == Sensitive(read)
    assert settings.keys_path == secret


def test_a_key_that_is_given_itself_has_no_file() -> None:
    assert load(HOME | ON_POSTGRESQL).keys_path is None


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_every_secret_can_stand_in_a_file(tmp_path: Path, name: str) -> None:
    given = {
        "store_url": "sqlite:////somewhere/store.db",
        "broker_url": "redis://127.0.0.1/0",
        "vercel_client_secret": "secret",
    }
    secret = tmp_path / "secret"
    secret.write_text(given.get(name, "k" * 32) + "\n")
    more = (
        {"ROLLOVER_VERCEL_CLIENT_ID": "id", "ROLLOVER_VERCEL_TOKEN_URL": "https://example.com/token"} if name.startswith("vercel") else {}
    )
    settings = load(HOME | more | {f"ROLLOVER_{name.upper()}_FILE": str(secret)})
    assert getattr(settings, name) == Sensitive(given.get(name, "k" * 32))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"  \n", "empty"),
        (b"\xff\xfe", "not text"),
        (b"a\x00b", "not text"),
        (b"x" * 70_000, "too large"),
    ],
)
def test_a_file_that_holds_no_secret_is_a_fault(tmp_path: Path, content: bytes, problem: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(content)
    assert problem in faults({"ROLLOVER_KEYS_FILE": str(secret)})["ROLLOVER_KEYS_FILE"].problem


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    assert "No such file" in faults({"ROLLOVER_KEYS_FILE": str(tmp_path / "none")})["ROLLOVER_KEYS_FILE"].problem
    assert "directory" in faults({"ROLLOVER_KEYS_FILE": str(tmp_path)})["ROLLOVER_KEYS_FILE"].problem


def test_a_secret_twice_is_a_fault(tmp_path: Path) -> None:
    found = faults({"ROLLOVER_KEYS_FILE": str(tmp_path / "keys"), "ROLLOVER_KEYS": CANARY})
    assert "together with ROLLOVER_KEYS" in found["ROLLOVER_KEYS_FILE"].problem


def test_all_faults_are_told_together() -> None:
    found = faults(
        {
            "ROLLOVER_TIKC_SECONDS": CANARY,
            "ROLLOVER_TICK_SECONDS": CANARY,
            "ROLLOVER_LOG_FORMAT": CANARY,
            "ROLLOVER_ALLOW_PRIVATE_HOSTS": CANARY,
            "ROLLOVER_MAX_GRACE": "30",
            "ROLLOVER_DATA_DIR": "here",
            "ROLLOVER_CALL_DEADLINE_SECONDS": "45",
            "ROLLOVER_KEYS_FILE": f"/nowhere/{CANARY}",
        },
    )
    assert found.keys() == {
        "ROLLOVER_TIKC_SECONDS",
        "ROLLOVER_TICK_SECONDS",
        "ROLLOVER_LOG_FORMAT",
        "ROLLOVER_ALLOW_PRIVATE_HOSTS",
        "ROLLOVER_MAX_GRACE",
        "ROLLOVER_DATA_DIR",
        "ROLLOVER_CALL_DEADLINE_SECONDS",
        "ROLLOVER_KEYS_FILE",
    }
    assert found["ROLLOVER_TIKC_SECONDS"].advice == "did you mean ROLLOVER_TICK_SECONDS?"
    assert found["ROLLOVER_MAX_GRACE"].problem.startswith("has no unit")
    assert found["ROLLOVER_LOG_FORMAT"].problem == "must be 'console' or 'json'"


def test_a_fault_in_one_setting_is_not_told_again_for_another() -> None:
    assert faults({"ROLLOVER_CLAIM_SECONDS": "60"}).keys() == {"ROLLOVER_CLAIM_SECONDS"}


@pytest.mark.parametrize(
    ("call", "claim", "visibility", "wrong"),
    [
        ("45", "45", "300", "ROLLOVER_CALL_DEADLINE_SECONDS"),
        ("50", "45", "300", "ROLLOVER_CALL_DEADLINE_SECONDS"),
        ("20", "45", "45", "ROLLOVER_VISIBILITY_TIMEOUT_SECONDS"),
        ("20", "46", "300", "ROLLOVER_CLAIM_SECONDS"),
    ],
)
def test_a_call_ends_before_the_claim_and_the_claim_before_the_message_comes_again(
    call: str, claim: str, visibility: str, wrong: str
) -> None:
    assert faults(
        {
            "ROLLOVER_CALL_DEADLINE_SECONDS": call,
            "ROLLOVER_CLAIM_SECONDS": claim,
            "ROLLOVER_VISIBILITY_TIMEOUT_SECONDS": visibility,
        },
    ).keys() == {wrong}


@pytest.mark.parametrize("number", ["0", "-1", "nan", "inf", "1e9", """ 1s """])
def test_a_time_is_a_positive_number(number: str) -> None:
    assert faults({"ROLLOVER_HINT_SECONDS": number}).keys() == {"ROLLOVER_HINT_SECONDS"}


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load(HOME | {"ROLLOVER_TICK_SECONDS": "", "ROLLOVER_KEYS_FILE": " "}).tick_seconds == 5


def test_a_shared_store_needs_keys_that_were_configured() -> None:
    found = faults({"ROLLOVER_STORE_URL": "postgresql://db.example.com/rollover"})
    assert found.keys() == {"ROLLOVER_KEYS"}
    assert "ROLLOVER_KEYS_FILE" in found["ROLLOVER_KEYS"].advice


def test_a_short_audit_key_is_a_fault() -> None:
    assert "too short" in faults({"ROLLOVER_AUDIT_KEY": "short"})["ROLLOVER_AUDIT_KEY"].problem


def test_short_lived_tokens_need_all_three_settings() -> None:
    found = faults({"ROLLOVER_VERCEL_CLIENT_ID": "id"})
    assert found.keys() == {"ROLLOVER_VERCEL_CLIENT_SECRET", "ROLLOVER_VERCEL_TOKEN_URL"}


def test_the_default_grace_is_within_the_longest() -> None:
    found = faults({"ROLLOVER_MAX_GRACE": "1h", "ROLLOVER_VERCEL_DEFAULT_GRACE": "2h"})
    assert found.keys() == {"ROLLOVER_VERCEL_DEFAULT_GRACE"}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@h/d",
        "postgres://u:p@h:5433/d",
        "postgresql+psycopg://u:p@h/d?sslmode=verify-full",
        "postgresql:///d?host=/run/postgresql",
    ],
)
def test_postgresql_is_reached_through_psycopg(url: str) -> None:
    assert load(HOME | ON_POSTGRESQL | {"ROLLOVER_STORE_URL": url}).store.drivername == "postgresql+psycopg"


@pytest.mark.parametrize("path", ["/a/b.db", "/with a space/ü%20#?.db"])
def test_a_path_may_hold_any_character(path: str) -> None:
    assert load(HOME | {"ROLLOVER_DATA_DIR": path}).store.database == f"{path}/rollover.db"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (f"mysql://u:{CANARY}@h/d", "neither PostgreSQL nor SQLite"),
        (f"postgresql+asyncpg://u:{CANARY}@h/d", "asynchronous"),
        (f"postgresql+psycopg_async://u:{CANARY}@h/d", "asynchronous"),
        ("sqlite+aiosqlite:////a.db", "asynchronous"),
        (f"postgresql+psycopg2://u:{CANARY}@h/d", "neither PostgreSQL nor SQLite"),
        (f"postgresql://h/d?password={CANARY}", "among its options"),
        (f"postgresql://u:{CANARY}@h:port/d", "not a database URL"),
        (f"postgresql:///{CANARY}", "no host"),
        ("sqlite://", "no file"),
        ("sqlite:///:memory:", "no file"),
        ("sqlite:///here.db", "relative"),
        ("sqlite:////a.db?mode=ro", "options"),
        (CANARY, "not a database URL"),
    ],
)
def test_another_store_is_refused_with_the_reason(url: str, problem: str) -> None:
    assert problem in faults(ON_POSTGRESQL | {"ROLLOVER_STORE_URL": url})["ROLLOVER_STORE_URL"].problem


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (f"memory://{CANARY}", "no broker"),
        (f"sqla+postgresql://u:{CANARY}@h/d", "no broker"),
        (f"redis://:{CANARY}/x@h/0", "percent-encoded"),
        (f"redis://:{CANARY}@x@h/0", "percent-encoded"),
        (f"redis://:{CANARY}@h:port/0", "not a URL"),
        (CANARY, "not a URL"),
        (f"redis://:{CANARY} @h/0", "not a URL"),
    ],
)
def test_another_broker_is_refused_with_the_reason(url: str, problem: str) -> None:
    assert problem in faults({"ROLLOVER_BROKER_URL": url})["ROLLOVER_BROKER_URL"].problem


@pytest.mark.parametrize("scheme", BROKERS)
def test_each_kind_of_broker_is_accepted(scheme: str) -> None:
    assert load(HOME | {"ROLLOVER_BROKER_URL": f"{scheme}://broker.example.com"}).broker_url == Sensitive(f"{scheme}://broker.example.com")


@pytest.mark.parametrize("url", ["https://example.com/v2", "http://localhost:1", "http://127.0.0.9:1", "http://[::1]:8080"])
def test_a_service_is_encrypted_or_on_this_machine(url: str) -> None:
    assert load(HOME | {"ROLLOVER_VERCEL_API_URL": url}).vercel_api_url == url


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://example.com", "not encrypted"),
        ("http://localhost.example.com", "not encrypted"),
        ("http://10.0.0.1", "not encrypted"),
        (f"https://u:{CANARY}@example.com", "login"),
        (f"https://example.com?token={CANARY}", "query"),
        ("https://example.com#x", "fragment"),
        ("ftp://example.com", "not an address"),
        ("api.vercel.com", "not a URL"),
        ("https://", "not a URL"),
    ],
)
def test_another_service_is_refused_with_the_reason(url: str, problem: str) -> None:
    assert problem in faults({"ROLLOVER_VERCEL_API_URL": url})["ROLLOVER_VERCEL_API_URL"].problem


def test_the_effective_settings_name_their_source_and_hide_secrets(tmp_path: Path) -> None:
    secret = tmp_path / "broker"
    secret.write_text(f"redis://user:{CANARY}@broker.example.com:6380/2?x={CANARY}\n")
    settings = load(HOME | ON_POSTGRESQL | {"ROLLOVER_BROKER_URL_FILE": str(secret), "ROLLOVER_MAX_GRACE": "36h"})
    rows = {row.name: (row.value, row.source) for row in settings.effective()}
    assert CANARY not in repr(rows)
    assert rows["ROLLOVER_STORE_URL"] == ("postgresql+psycopg://[hidden]@db.example.com/rollover", "environment")
    assert rows["ROLLOVER_BROKER_URL"] == ("redis://[hidden]@broker.example.com:6380/2", "file")
    assert rows["ROLLOVER_KEYS"] == ("[hidden]", "environment")
    assert rows["ROLLOVER_MAX_GRACE"] == ("1d12h", "environment")
    assert rows["ROLLOVER_TICK_SECONDS"] == ("5", "default")
    assert rows["ROLLOVER_ALLOW_PRIVATE_HOSTS"] == ("false", "default")
    assert rows["ROLLOVER_VERCEL_TOKEN_URL"] == ("", "default")
    assert len(rows) == len(Settings.model_fields)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (f"redis://{CANARY}@[::1]:6379/0?x={CANARY}", "redis://[hidden]@[::1]:6379/0"),
        (f"redis://:{CANARY}/@h", "[hidden]"),
        (CANARY, "[hidden]"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, shown: str) -> None:
    assert masked_address(address) == shown


def test_the_secrets_that_were_set_are_given_to_the_redactor() -> None:
    assert load(HOME).secrets() == ()
    assert len(load(HOME | ON_POSTGRESQL).secrets()) == 3


def test_settings_cannot_be_read_by_accident_or_changed() -> None:
    settings = load(HOME | ON_POSTGRESQL)
    assert CANARY not in repr(settings)
    assert CANARY not in str(settings)
    with pytest.raises(ValidationError, match="frozen"):
        settings.tick_seconds = 1
    with pytest.raises((TypeError, ValueError)):
        settings.model_dump_json()


@unhurried
@given(st.dictionaries(st.sampled_from([f"ROLLOVER_{name.upper()}" for name in Settings.model_fields]), st.text()))
def test_no_values_make_it_fail_otherwise(environ: dict[str, str]) -> None:
    with suppress(Invalid):
        assert len(load(HOME | environ).effective()) == len(Settings.model_fields)
