"""A resource's spec as it is stored: nothing is lost, nothing is guessed."""

from __future__ import annotations

import json
from datetime import time, timedelta

import pytest

from rotation.errors import Refused
from rotation.model import Database, Endpoint, Policy, ResourceSpec, SecretTemplate, Window
from rotation.states import InUse, PushBy
from rotation.store.specs import spec_from_json, spec_to_json

PLAIN = ResourceSpec("icfg_1", "store_1", "postgres", "postgresql", True, Database("pg", "orders", "owner", "orders"), ())
FULL = ResourceSpec(
    installation_id="icfg_ä",
    external_id="store 1",
    product="postgres",
    engine="postgresql",
    owns_all_secrets=False,
    database=Database("pg", "orders", "owner", "orders", (Endpoint("pooled", "pool.example.com", 6432),)),
    secrets=(
        SecretTemplate("DATABASE_URL", "postgresql://{username}", "APP_", (("preview", "x"), ("production", "y"))),
        SecretTemplate("A", "b"),
    ),
    policy=Policy(
        every=timedelta(days=30, microseconds=1),
        cron="0 3 * * SUN",
        timezone="Europe/Berlin",
        window=Window(time(22, 30), time(4)),
        jitter=timedelta(hours=1),
        grace=timedelta(0),
        grace_vercel=timedelta(minutes=5),
        in_use=InUse.PROCEED,
        in_use_vercel=InUse.WAIT,
        in_use_cap=timedelta(hours=72),
        quiet=timedelta(hours=2),
        blocked=timedelta(seconds=1),
    ),
    push_by=PushBy.PRODUCT,
    notify=False,
    password_length=48,
)


@pytest.mark.parametrize("spec", [PLAIN, FULL], ids=["plain", "full"])
def test_a_spec_comes_back_as_it_was(spec: ResourceSpec) -> None:
    assert spec_from_json(spec_to_json(spec)) == spec


def test_the_same_spec_has_one_text() -> None:
    assert spec_to_json(FULL) == spec_to_json(spec_from_json(spec_to_json(FULL)))
    assert " " not in spec_to_json(PLAIN)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"unknown": 1},
        {"policy": {}},
        {"push_by": "mail"},
        {"database": {"server": "pg", "name": "x", "owner_role": "y", "login_prefix": "z"}},
        {"secrets": [{"name": "A", "value": "b"}]},
    ],
    ids=["a newer version", "an unknown field", "a missing field", "an unknown choice", "no endpoints", "half a secret"],
)
def test_a_spec_that_is_not_understood_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(Refused):
        spec_from_json(json.dumps({**json.loads(spec_to_json(PLAIN)), **change}))
