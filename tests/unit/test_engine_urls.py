from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotation.engines.urls import endpoints, targets
from rotation.errors import Refused
from rotation.model import Database, Endpoint, Login, RenderedSecret, Resource, ResourceSpec, Server
from rotation.sensitive import Sensitive
from rotation.states import ResourceState

LOGIN = Login("app_g1", Sensitive("Secret0Password"))
POOLED = Endpoint("pooled", "pool.example.com", 6432)
GOOD = "postgresql://app_g1:Secret0Password@db.example.com:5433/orders"


def resource(*named: Endpoint, database: str = "orders") -> Resource:
    place = Database("pg", database, "owner", "app", named)
    spec = ResourceSpec("icfg", "store", "postgres", "postgresql", owns_all_secrets=True, database=place, secrets=())
    return Resource("r", ResourceState.ACTIVE, 1, spec, Server("pg", "postgresql", "db.example.com", 5433))


def check(url: str, *, override: str | None = None, login: Login = LOGIN, database: str = "orders") -> tuple[Endpoint, ...]:
    overrides = (("preview", Sensitive(override)),) if override else ()
    return targets(resource(POOLED, database=database), login, [RenderedSecret("URL", Sensitive(url), overrides=overrides)])


def test_the_server_itself_is_the_first_endpoint_unless_it_is_named_otherwise() -> None:
    assert endpoints(resource(POOLED)) == (Endpoint("", "db.example.com", 5433), POOLED)
    public = Endpoint("", "public.example.com", 5432)
    assert endpoints(resource(public, POOLED)) == (public, POOLED)


@pytest.mark.parametrize(
    "url",
    [
        GOOD,
        GOOD.replace("postgresql:", "postgres:"),
        GOOD.replace("db.example.com:5433", "pool.example.com:6432"),
        GOOD.replace("db.example.com", "DB.Example.com"),
        GOOD + "?sslmode=require&connect_timeout=15&pgbouncer=true",
        GOOD.replace("app_g1", "%61pp_g1"),
        "not a URL at all",
        "mysql://somebody:else@elsewhere/",
        "",
    ],
)
def test_a_url_that_says_what_it_must_leads_to_every_endpoint_once(url: str) -> None:
    assert check(url) == endpoints(resource(POOLED))


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (GOOD.replace("db.example.com", "evil.example.com"), "host"),
        (GOOD.replace(":5433", ""), "host"),
        (GOOD.replace(":5433", ":6432"), "host"),
        (GOOD.replace(":5433", ":99999"), "well formed"),
        (GOOD.replace(":5433", ":port"), "well formed"),
        (GOOD.replace(":5433", ":0"), "one user at one host"),
        (GOOD.replace("db.example.com:5433", "[::1"), "well formed"),
        (GOOD.replace("app_g1", "other"), "another user"),
        (GOOD.replace("app_g1:Secret0Password@", ""), "one user at one host"),
        (GOOD.replace("Secret0", "Secret1"), "another password"),
        (GOOD.replace("Secret0", "Sec@ret0"), "one user at one host"),
        (GOOD.replace("Secret0", "Sec#ret0"), "one user at one host|well formed"),
        (GOOD.replace("Secret0", "Sec/ret0"), "one user at one host|well formed"),
        (GOOD.replace("Secret0", "Sec%ret0"), "must encode"),
        (GOOD.replace("Secret0", "Sec%ff%fe"), "well formed"),
        (GOOD.replace("Secret0", "Sec ret0"), "must encode"),
        (GOOD.replace("Secret0", "Sec\nret0"), "must encode"),
        (GOOD.replace("Secret0", "Sécret0"), "must encode"),
        (GOOD.replace("db.example.com:5433", "db.example.com:5433,evil.example.com:5432"), "one user at one host|well formed"),
        (GOOD.replace("/orders", "/other"), "another database"),
        (GOOD.replace("/orders", ""), "names no database"),
        (GOOD.replace("/orders", "/orders/more"), "names no database"),
        (GOOD + "#", "one user at one host"),
        (GOOD + "?host=evil.example.com", "option"),
        (GOOD + "?HostAddr=10.0.0.1", "option"),
        (GOOD + "?sslmode=require&user=postgres", "option"),
        (GOOD + "?service=", "option"),
    ],
)
def test_a_url_that_says_anything_else_is_refused_without_being_repeated(url: str, problem: str) -> None:
    with pytest.raises(Refused, match=problem) as refused:
        check(url)

    assert refused.value.__cause__ is None
    assert "Secret" not in str(refused.value)
    assert "URL" in str(refused.value)


def test_the_value_for_one_environment_is_held_to_the_same() -> None:
    assert check(GOOD, override=GOOD)
    with pytest.raises(Refused, match="URL for preview"):
        check(GOOD, override=GOOD.replace("orders", "other"))


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_what_is_encoded_for_a_url_comes_out_as_it_was(username: str, password: str, database: str) -> None:
    encoded = [quote(part, safe="", errors="surrogatepass") for part in (username, password, database)]
    url = "postgresql://{}:{}@db.example.com:5433/{}".format(*encoded)
    try:
        f"{username}{password}{database}".encode()
    except UnicodeEncodeError:
        with pytest.raises(Refused):
            check(url, login=Login(username, Sensitive(password)), database=database)
    else:
        assert check(url, login=Login(username, Sensitive(password)), database=database)
