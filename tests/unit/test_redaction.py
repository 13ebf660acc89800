from __future__ import annotations

import json
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Never
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import settings as run_with
from hypothesis import strategies as st
from pydantic import SecretStr

from rotation.model import Login
from rotation.sensitive import Sensitive
from worker.redaction import HIDDEN, LONGEST_TEXT, Redactor, is_telling

unhurried = run_with(deadline=None)  # a busy machine is no fault

CANARY = "CANARYqT7xLmN0pQr5sVwYz"
REDACTOR = Redactor()


@pytest.mark.parametrize(
    "value", [Sensitive(CANARY), SecretStr(CANARY), [Sensitive(CANARY)], {"a": {"b": (Sensitive(CANARY),)}}, CANARY.encode()]
)
def test_a_secret_is_hidden_by_its_type(value: object) -> None:
    assert CANARY not in json.dumps(REDACTOR.value(value))


TELLING = [
    "password",
    "new_password",
    "PGPASSWORD",
    "passwordHash",
    "token",
    "access_token",
    "accessToken",
    "tokens",
    "client_secret",
    "secrets",
]
MORE_TELLING = ["Authorization", "proxy-authorization", "verifier", "key", "keys", "api_key", "X-API-Key", "apikey", "set-cookie", "Cookie"]


@pytest.mark.parametrize(
    "name", [*TELLING, *MORE_TELLING, "secret_value", "user.password", "pwd", "dsn", "auth", "credentials", "audit_key", "PASSWORD"]
)
def test_a_value_is_hidden_by_its_name(name: str) -> None:
    assert is_telling(name)
    for value in ("x", 12345678, ["x"], {"x": "x"}):
        assert REDACTOR.fields({"deeper": [{name: value}]}) == {"deeper": [{name: HIDDEN}]}


HARMLESS = [
    "secret_names",
    "idempotency_key",
    "password_length",
    "password_file",
    "token_url",
    "key_id",
    "token_type",
    "secrets_count",
    "routing_key",
]


@pytest.mark.parametrize(
    "name", [*HARMLESS, "credential", "credential_id", "rotation", "event", "monkey_id", "author", "generation", "", "__", "passed"]
)
def test_a_name_that_tells_nothing_is_left_alone(name: str) -> None:
    assert not is_telling(name)
    assert REDACTOR.fields({name: "x1"}) == {name: "x1"}


@pytest.mark.parametrize("value", [None, True, False])
def test_whether_there_is_a_secret_may_be_said(value: object) -> None:
    assert REDACTOR.fields({"token": value}) == {"token": value}


LEAKS = [
    "postgresql://u:{}@h/d",
    "redis://:{}@h:6379/0 is down",
    "amqp://{}@h",
    "(postgresql://u:a/{}@b@h/d)",
    "SCRAM-SHA-256$4096:{}$x:y",
    "Authorization: Bearer {}",
    "bearer {}",
    "Basic {}=",
    "eyJhbGciOi.{}.sig",
    "PASSWORD '{}'",
    "ALTER ROLE x PASSWORD 'it''s {}'",
    "ENCRYPTED PASSWORD '{}",
    'IDENTIFIED BY "{}"',
    "password={}",
    "host=h password = {} user=u",
    "password='a {}'",
    "{{'password': '{}'}}",
    '{{"access_token": "{}", "x": 1}}',
    '{{\\"client_secret\\": \\"{}\\"}}',
    "PGPASSWORD={}",
    "?token={}&x=1",
    "api_key: {}",
    "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----\n{}",
]


@pytest.mark.parametrize("leak", LEAKS)
def test_a_secret_is_hidden_by_its_looks(leak: str) -> None:
    for text in (leak.format(CANARY), f"before {leak.format(CANARY)} after"):
        for shown in (REDACTOR.text(text), str(REDACTOR.value(ValueError(text))), str(REDACTOR.value({text: 1}))):
            assert CANARY not in shown
            assert HIDDEN in shown


def test_the_hash_that_md5_logins_have_is_hidden() -> None:
    assert REDACTOR.text("md5" + "0123456789abcdef" * 2) == HIDDEN


@pytest.mark.parametrize(
    "text",
    [
        "password authentication failed for user orders_g3_0123456789abcdef",
        "https://api.vercel.com/v1/installations/icfg_1/resources/store_42/secrets",
        "rotation_completed",
        "a message from me@example.com",
        "basic information about this",
        "password_length=32",
        "2026-11-23T06:15:52.450888Z",
    ],
)
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert REDACTOR.text(text) == text


def test_the_secrets_of_the_settings_are_hidden_wherever_they_are() -> None:
    redactor = Redactor(
        [Sensitive(f"redis://:{quote('p/w' + CANARY, safe='')}@h"), Sensitive("keyring " + CANARY[::-1]), Sensitive("short")]
    )
    for text in (f"p/w{CANARY}", f"x{quote('p/w' + CANARY, safe='')}x", "keyring " + CANARY[::-1], quote("keyring " + CANARY[::-1])):
        shown = redactor.text(text)
        assert CANARY not in shown
        assert CANARY[::-1] not in shown
    assert redactor.text("short words stay") == "short words stay"
    key = "k3Y" * 14
    assert (
        Redactor([Sensitive(f"# the newest comes last\nsecrets {key}\naudit {key[::-1]}")]).text(f"a {key}, {key[::-1]}")
        == f"a {HIDDEN}, {HIDDEN}"
    )
    assert CANARY not in repr(redactor) + repr(vars(Redactor()))
    assert Redactor([Sensitive("https://[broken")]).text("x") == "x"


class Colour(StrEnum):
    RED = "red"


@dataclass
class Thing:
    login: Login


class Hostile:
    def __repr__(self) -> Never:
        raise RuntimeError(CANARY)


def test_every_kind_of_value_becomes_plain_data() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    values = [
        at,
        timedelta(seconds=1),
        Path("/a"),
        Colour.RED,
        1.5,
        {1, 2},
        OrderedDict(a=1),
        Thing(Login("u", Sensitive(CANARY))),
        Hostile(),
        b"x",
    ]
    shown = REDACTOR.value(values)
    assert shown == [
        str(at),
        "0:00:01",
        "/a",
        "red",
        1.5,
        [1, 2],
        {"a": 1},
        shown[7] if isinstance(shown, list) else None,
        "[unreadable Hostile]",
        "[1 bytes]",
    ]
    assert CANARY not in json.dumps(shown)


def test_what_contains_itself_ends() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert "too deep" in json.dumps(REDACTOR.value(endless))


def test_a_line_cannot_pretend_to_be_two() -> None:
    assert REDACTOR.text("a\nb\r\x1b[31m\u2028") == "a\\n b\\r \\x1b[31m\\u2028 "
    assert REDACTOR.text("a\nb\x1b", lines=True) == "a\nb\\x1b"
    assert REDACTOR.fields({"exception": "a\nb", "event": "a\nb"}, long={"exception"}) == {"exception": "a\nb", "event": "a\\n b"}


def test_a_long_text_is_cut_without_leaving_half_a_secret() -> None:
    text = REDACTOR.text("a " * 40_000)
    assert len(text) == LONGEST_TEXT
    half = "x " * 32_760 + "postgresql://user:" + CANARY * 10 + "@host"
    assert CANARY not in REDACTOR.text(half)
    assert CANARY not in REDACTOR.text("y" * (LONGEST_TEXT - 20) + " password=" + CANARY)


@pytest.mark.parametrize(
    "text",
    [
        "a://" * 16_000,
        "eyJaaaaa-" * 7_000,
        "bearer " * 9_000,
        "password" + " " * 60_000,
        "x" * 1_000_000,
        "-----BEGIN PRIVATE KEY" * 3_000,
        "\\\"'" * 20_000,
    ],
)
def test_no_text_takes_long(text: str) -> None:
    begun = time.process_time()
    REDACTOR.text(text)
    assert time.process_time() - begun < 2


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.sampled_from([*LEAKS, *TELLING, "@", "://", HIDDEN]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(TELLING), inner) | st.tuples(inner, inner),
    max_leaves=12,
)


@unhurried
@given(ANYTHING)
def test_redacting_never_fails_and_twice_changes_nothing_more(value: object) -> None:
    once = REDACTOR.value(value)
    json.dumps(once)
    assert repr(REDACTOR.value(once)) == repr(once)


@unhurried
@given(st.lists(st.sampled_from([*LEAKS, " ", "x", "'", '"', "=", "@", "://", ":", "[hidden]", "password", "\n"]), max_size=8))
def test_texts_made_of_leaks_are_settled_at_once(parts: list[str]) -> None:
    once = REDACTOR.text("".join(parts))
    assert REDACTOR.text(once) == once


@unhurried
@given(
    ANYTHING,
    st.sampled_from(LEAKS),
    st.lists(st.sampled_from(["list", "tuple", "dict", "error"]), max_size=5),
    st.text(alphabet="ab cd{}[](),;\n", max_size=20),
    st.text(alphabet="0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=32, max_size=64),
)
def test_a_planted_secret_is_found_in_whatever_holds_it(beside: object, leak: str, layers: list[str], around: str, password: str) -> None:
    assume(password not in repr(beside))
    value: object = f"{around} {leak.format(password)}"
    for layer in layers:
        match layer:
            case "list":
                value = [beside, value]
            case "tuple":
                value = (value, beside)
            case "dict":
                value = {"a": value, "b": beside}
            case _:
                value = ValueError(value)
    assert password not in json.dumps(REDACTOR.value(value))
