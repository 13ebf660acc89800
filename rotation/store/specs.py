"""A resource's spec as canonical JSON, and back. Strict: an unknown or missing field is an error, never silently a default.

A spec that was written by an earlier version is read by its `version`; a new field gets a new version and a rule for the older ones.
"""

from __future__ import annotations

import dataclasses
import json
from datetime import time, timedelta
from typing import TYPE_CHECKING, Any

from rotation.errors import Refused
from rotation.model import Database, Endpoint, Policy, ResourceSpec, SecretTemplate, Window
from rotation.states import InUse, PushBy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed import DataclassInstance

VERSION = 1

DURATIONS = ("every", "jitter", "grace", "grace_vercel", "in_use_cap", "quiet", "blocked")

Json = Any
"""What `json.loads` gives: checked by the constructors below, field by field."""


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: Json) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no escapes beyond what JSON demands."""
    return _CANONICAL.encode(value)


def spec_to_json(spec: ResourceSpec) -> str:
    """The spec as canonical JSON."""
    return canonical(
        {
            "version": VERSION,
            "installation_id": spec.installation_id,
            "external_id": spec.external_id,
            "product": spec.product,
            "engine": spec.engine,
            "owns_all_secrets": spec.owns_all_secrets,
            "database": _database_to_json(spec.database),
            "secrets": [_secret_to_json(one) for one in spec.secrets],
            "policy": _policy_to_json(spec.policy),
            "push_by": spec.push_by.value,
            "notify": spec.notify,
            "password_length": spec.password_length,
        }
    )


def spec_from_json(text: str) -> ResourceSpec:
    """The spec back. Raises `Refused` when the text is not one that this version understands."""
    try:
        return _spec(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refused(
            f"a stored resource cannot be read: {error}", advice="it was written by a newer version: run that one, or restore the store"
        ) from error


def _spec(stored: Mapping[str, Json]) -> ResourceSpec:
    fields = dict(stored)
    if (version := fields.pop("version")) != VERSION:
        raise ValueError(f"version {version} is unknown")
    _check_complete(fields, ResourceSpec)
    database = dict(fields.pop("database"))
    _check_complete(database, Database)
    endpoints = tuple(Endpoint(**one) for one in database.pop("endpoints"))
    return ResourceSpec(
        database=Database(endpoints=endpoints, **database),
        secrets=tuple(_secret(one) for one in fields.pop("secrets")),
        policy=_policy(fields.pop("policy")),
        push_by=PushBy(fields.pop("push_by")),
        **fields,
    )


def _check_complete(stored: Mapping[str, Json], kind: type[DataclassInstance]) -> None:
    """Raise `ValueError` unless exactly the fields of the kind are there: a default would hide what is missing."""
    wanted = {field.name for field in dataclasses.fields(kind)}
    if wanted != stored.keys():
        raise ValueError(f"{kind.__name__} has the wrong fields: {', '.join(sorted(wanted ^ stored.keys()))}")


def _database_to_json(database: Database) -> Json:
    return {
        "server": database.server,
        "name": database.name,
        "owner_role": database.owner_role,
        "login_prefix": database.login_prefix,
        "endpoints": [{"name": one.name, "host": one.host, "port": one.port} for one in database.endpoints],
    }


def _secret_to_json(secret: SecretTemplate) -> Json:
    return {"name": secret.name, "value": secret.value, "prefix": secret.prefix, "overrides": [list(one) for one in secret.overrides]}


def _secret(stored: Mapping[str, Json]) -> SecretTemplate:
    fields = dict(stored)
    _check_complete(fields, SecretTemplate)
    overrides = tuple((environment, value) for environment, value in fields.pop("overrides"))
    return SecretTemplate(overrides=overrides, **fields)


def _policy_to_json(policy: Policy) -> Json:
    return {
        "every": _microseconds(policy.every),
        "cron": policy.cron,
        "timezone": policy.timezone,
        "window": None if policy.window is None else [policy.window.start.isoformat(), policy.window.end.isoformat()],
        "jitter": _microseconds(policy.jitter),
        "grace": _microseconds(policy.grace),
        "grace_vercel": _microseconds(policy.grace_vercel),
        "in_use": policy.in_use.value,
        "in_use_vercel": policy.in_use_vercel.value,
        "in_use_cap": _microseconds(policy.in_use_cap),
        "quiet": _microseconds(policy.quiet),
        "blocked": _microseconds(policy.blocked),
    }


def _policy(stored: Mapping[str, Json]) -> Policy:
    fields = dict(stored)
    _check_complete(fields, Policy)
    window = fields.pop("window")
    durations: dict[str, Json] = {name: _duration(fields.pop(name)) for name in DURATIONS}
    return Policy(
        window=None if window is None else Window(*(time.fromisoformat(one) for one in window)),
        in_use=InUse(fields.pop("in_use")),
        in_use_vercel=InUse(fields.pop("in_use_vercel")),
        **durations,
        **fields,
    )


def _microseconds(duration: timedelta | None) -> int | None:
    return None if duration is None else duration // timedelta(microseconds=1)


def _duration(microseconds: int | None) -> timedelta | None:
    return None if microseconds is None else timedelta(microseconds=microseconds)
