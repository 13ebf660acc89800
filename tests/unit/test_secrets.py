from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotation.errors import Invalid
from rotation.model import Endpoint, Login, RenderedSecret, SecretTemplate, Server
from rotation.sensitive import Sensitive
from rotation.vercel.secrets import full_name, parse, payload, render, validate
from rotation.vercel.template_sets import TEMPLATE_SETS
from tests.vercel_peers import LOGIN, URL_TEMPLATE, a_resource

if TYPE_CHECKING:
    from rotation.model import ResourceSpec

POOLED = (Endpoint("pooled", "pool.example.com", 6432),)
SERVER = Server("pg-eu-1", "postgresql", "db.example.com", 5432)
GOOD = SecretTemplate("DATABASE_URL", URL_TEMPLATE)


def spec_with(*secrets: SecretTemplate, endpoints: tuple[Endpoint, ...] = ()) -> ResourceSpec:
    return a_resource(secrets=secrets, endpoints=endpoints).spec


def faults_of(*secrets: SecretTemplate) -> list[str]:
    return [f"{fault.field}: {fault.problem}" for fault in validate(spec_with(*secrets))]


def rendered(template: str, login: Login = LOGIN, server: Server = SERVER) -> str:
    (secret,) = render(spec_with(SecretTemplate("A", template), endpoints=POOLED), server, login)
    return secret.value.reveal()


def test_placeholders_are_replaced_by_the_login_the_server_and_the_endpoints() -> None:
    template = "{username} {password} {host} {port} {database} {pooled.host} {pooled.port}"
    assert rendered(template) == "orders_app_2 canary p@ss/w%rd db.example.com 5432 orders pool.example.com 6432"


def test_in_a_url_every_value_is_encoded_once() -> None:
    assert rendered(URL_TEMPLATE) == "postgresql://orders_app_2:canary%20p%40ss%2Fw%25rd@db.example.com:5432/orders"


def test_an_ipv6_address_stands_in_brackets_in_a_url_and_bare_elsewhere() -> None:
    server = replace(SERVER, host="2001:db8::1")
    assert rendered("postgresql://{host}:{port}/x", server=server) == "postgresql://[2001:db8::1]:5432/x"
    assert rendered("{host}", server=server) == "2001:db8::1"


@pytest.mark.parametrize(("template", "text"), [("{{{username}}}", "{u}"), ("{{username}}", "{username}"), ("a}}b{{", "a}b{")])
def test_doubled_braces_are_literal(template: str, text: str) -> None:
    assert rendered(template, Login("u", Sensitive("p"))) == text


@pytest.mark.parametrize("template", ["{", "}", "a{b", "a}b", "{{}", "{a{b}", "{{{username}}"])
def test_a_single_brace_is_a_fault(template: str) -> None:
    with pytest.raises(ValueError, match="a single"):
        parse(template)
    assert any("a single" in fault for fault in faults_of(GOOD, SecretTemplate("B", template)))


@pytest.mark.parametrize(
    "placeholder",
    ["passwort", "", "0", "password!r", "password:x", "password.__class__", "password[0]", "pooled.host", "host.name", " password"],
)
def test_what_is_not_a_placeholder_is_a_fault_and_is_never_evaluated(placeholder: str) -> None:
    template = SecretTemplate("B", f"x{{{placeholder}}}")
    (fault,) = faults_of(GOOD, template)
    assert fault.startswith("secrets[1].value: unknown placeholder")
    with pytest.raises(Invalid, match=r"secrets\[0\]\.value: unknown placeholder"):
        render(spec_with(template), SERVER, LOGIN)


def test_a_good_set_has_no_faults() -> None:
    assert faults_of(GOOD, SecretTemplate("PGHOST", "{host}", "ACME", (("development", "localhost"),))) == []


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "Ä", "A\n", "A=B"])
def test_a_name_that_no_variable_has_is_a_fault(name: str) -> None:
    assert faults_of(GOOD, SecretTemplate(name, "x")) == ["secrets[1].name: is not a variable's name"]
    assert faults_of(GOOD, SecretTemplate("B", "x", prefix=name)) == ["secrets[1].prefix: is not a variable's name"]


def test_a_name_is_at_most_256_characters_its_prefix_included() -> None:
    assert faults_of(GOOD, SecretTemplate("B" * 251, "x", "ACME")) == []
    assert faults_of(GOOD, SecretTemplate("B" * 252, "x", "ACME")) == [
        "secrets[1].name: is longer than 256 characters, its prefix included"
    ]


def test_names_that_are_the_same_are_faults_also_after_the_prefix() -> None:
    assert faults_of(GOOD, SecretTemplate("DATABASE_URL", "x", "ACME")) == ["secrets[1].name: the same name as secrets[0]"]
    secrets = (GOOD, SecretTemplate("ACME_B", "x"), SecretTemplate("B", "x", "ACME"))
    assert faults_of(*secrets) == ["secrets[2].name: with its prefix the same name as secrets[1]"]


def test_the_prefix_of_a_public_name_comes_after_next_public() -> None:
    assert full_name(SecretTemplate("NEXT_PUBLIC_URL", "x", "ACME")) == "NEXT_PUBLIC_ACME_URL"
    assert full_name(SecretTemplate("PGHOST", "x", "ACME")) == "ACME_PGHOST"


def test_empty_values_unknown_environments_and_control_characters_are_faults() -> None:
    assert faults_of(GOOD, SecretTemplate("B", "")) == ["secrets[1].value: is empty"]
    assert faults_of(GOOD, SecretTemplate("B", "x", overrides=(("preview", ""),))) == ["secrets[1].preview: is empty"]
    assert faults_of(GOOD, SecretTemplate("B", "x", overrides=(("staging", "y"),))) == ["secrets[1].staging: is not an environment"]
    twice = (("preview", "y"), ("preview", "z"))
    assert faults_of(GOOD, SecretTemplate("B", "x", overrides=twice)) == ["secrets[1].preview: is given twice"]
    for character in "\x00\n\x1b\x7f\x85\ud800":
        assert faults_of(GOOD, SecretTemplate("B", f"x{character}")) == ["secrets[1].value: has control characters"]


def test_a_set_without_a_secret_or_without_the_password_is_a_fault() -> None:
    assert faults_of() == ["secrets: there is none"]
    assert faults_of(SecretTemplate("A", "{username} {{password}}")) == ["secrets: none holds {password}"]
    assert faults_of(SecretTemplate("A", "{")) == ["secrets: none holds {password}", "secrets[0].value: a single { at character 1"]


def test_at_most_100_secrets() -> None:
    many = [SecretTemplate(f"A{index}", "x") for index in range(99)]
    assert faults_of(GOOD, *many) == []
    assert faults_of(GOOD, *many, SecretTemplate("B", "x")) == ["secrets: there are 101, Vercel takes at most 100"]


def test_sizes_are_judged_with_the_longest_login() -> None:
    # DATABASE_URL at its longest: 63 characters of user name, 32 characters of password that take three each, 253 of host.
    longest = len("DATABASE_URL" + "postgresql://:@:65535/orders") + 63 + 96 + 253
    assert faults_of(GOOD, SecretTemplate("B", "x" * (65_535 - 1 - longest))) == []
    (fault,) = faults_of(GOOD, SecretTemplate("B", "x" * (65_536 - 1 - longest)))
    assert fault == "secrets: names and values together can grow to 65536 bytes"
    faults = faults_of(GOOD, SecretTemplate("B", "x" * 65_537))
    assert faults[0] == "secrets[1].value: can grow beyond 65536 characters"


def test_sizes_are_counted_for_each_environment() -> None:
    first = SecretTemplate("B", "x", overrides=(("preview", "x" * 40_000),))
    assert faults_of(GOOD, first, SecretTemplate("C", "x", overrides=(("production", "x" * 40_000),))) == []
    (fault,) = faults_of(GOOD, first, SecretTemplate("C", "x", overrides=(("preview", "x" * 40_000),)))
    assert fault.endswith("in preview")


def test_rendering_refuses_what_only_the_login_makes_wrong_without_telling_it() -> None:
    for password in ("", "canary\n", "canary" * 20_000):
        with pytest.raises(Invalid) as raised:
            rendered("{password}", Login("u", Sensitive(password)))
        assert "canary" not in str(raised.value)
        assert raised.value.faults[0].field == "secrets[0].value"


def test_the_payload_has_exactly_the_keys_that_vercel_allows() -> None:
    secrets = (
        RenderedSecret("A", Sensitive("1")),
        RenderedSecret("B", Sensitive("ü"), "ACME", (("preview", Sensitive("3")),)),
    )
    assert json.loads(payload(secrets, owns_all=True)) == {
        "secrets": [{"name": "A", "value": "1"}, {"name": "B", "value": "ü", "prefix": "ACME", "environmentOverrides": {"preview": "3"}}],
        "partial": False,
    }
    assert json.loads(payload((), owns_all=False)) == {"secrets": [], "partial": True}


@pytest.mark.parametrize("name", TEMPLATE_SETS)
def test_a_ready_set_is_valid_and_its_urls_say_what_they_must(name: str) -> None:
    needs_pooled = any("{pooled." in secret.value for secret in TEMPLATE_SETS[name])
    spec = spec_with(*TEMPLATE_SETS[name], endpoints=POOLED if needs_pooled else ())
    assert validate(spec) == ()
    for secret in render(spec, SERVER, LOGIN):
        value = secret.value.reveal()
        if "://" in value:
            url = urlsplit(value)
            assert unquote(url.password or "") == LOGIN.password.reveal()
            assert (url.hostname, url.port) in {("db.example.com", 5432), ("pool.example.com", 6432)}
            assert ("sslmode" in parse_qs(url.query)) == (secret.name != "POSTGRES_URL_NO_SSL")


def test_the_pooled_set_has_every_name_that_providers_push() -> None:
    names = {secret.name for secret in TEMPLATE_SETS["postgres-pooled"]}
    assert names >= {
        "DATABASE_URL", "DATABASE_URL_UNPOOLED", "PGHOST", "PGHOST_UNPOOLED", "PGUSER", "PGDATABASE", "PGPASSWORD", "POSTGRES_URL",
        "POSTGRES_URL_NON_POOLING", "POSTGRES_PRISMA_URL", "POSTGRES_URL_NO_SSL", "POSTGRES_USER", "POSTGRES_HOST", "POSTGRES_PASSWORD",
        "POSTGRES_DATABASE",
    }  # fmt: skip
    (fault, *_) = validate(spec_with(*TEMPLATE_SETS["postgres-pooled"]))
    assert "unknown placeholder {pooled.host}" in fault.problem


visible = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60)


@given(username=visible, password=visible)
def test_what_was_encoded_for_a_url_is_read_back_as_it_was(username: str, password: str) -> None:
    value = rendered(URL_TEMPLATE, Login(username, Sensitive(password)))
    url = urlsplit(value)
    assert (unquote(url.username or ""), unquote(url.password or "")) == (username, password)
    assert (url.hostname, url.port, url.path) == ("db.example.com", 5432, "/orders")


@given(password=visible)
def test_outside_a_url_nothing_is_encoded(password: str) -> None:
    assert rendered("{password}", Login("u", Sensitive(password))) == password


@given(template=st.text(max_size=40))
def test_any_text_is_a_template_or_a_fault(template: str) -> None:
    spec = spec_with(GOOD, SecretTemplate("B", template))
    if validate(spec):
        return
    assert len(render(spec, SERVER, LOGIN)) == 2


@given(text=st.text(max_size=40))
def test_escaped_braces_give_the_text_back(text: str) -> None:
    assert parse(text.replace("{", "{{").replace("}", "}}")).fill({}) == text
