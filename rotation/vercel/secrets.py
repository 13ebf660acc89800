"""Secrets: from the templates in a resource's file to the body that Vercel gets.

A template is text with placeholders: `{username}`, `{password}`, `{database}`, `{host}` and `{port}` of the server, and `{NAME.host}` and
`{NAME.port}` of each published endpoint, e.g. `{pooled.host}`. `{{` and `}}` stand for braces. Where the template is a URL
(`scheme://…`), every value is percent-encoded, by one encoder, once; elsewhere it is put in as it is.

The limits are Vercel's for environment variables (vercel.com/docs/environment-variables, "Environment variable limits").
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from rotation.errors import Fault, Invalid
from rotation.model import RenderedSecret
from rotation.sensitive import Sensitive

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rotation.model import Login, ResourceSpec, SecretTemplate, Server

MOST_SECRETS = 100
LONGEST_NAME = 256
LONGEST_VALUE = 65_536
LARGEST_TOTAL = 64 * 1024
"""Bytes: all names and values of one environment together stay below this."""
ENVIRONMENTS = ("development", "preview", "production")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_PUBLIC = "NEXT_PUBLIC_"
_WIDEST_USERNAME = "u" * 63
TEMPLATES_KEPT = 4_096
"""How many parsed templates a process keeps: each is read six times a rotation. None holds a secret value."""
_WIDEST_HOST = "h" * 253
_WIDEST_PORT = "65535"


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: pieces of plain text, each followed by a placeholder or by None at the end."""

    pieces: tuple[tuple[str, str | None], ...]
    is_url: bool

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The placeholders in the order in which they stand."""
        return tuple(name for _, name in self.pieces if name is not None)

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with every placeholder replaced. Raises `KeyError` for one that has no value."""
        encode = _url_part if self.is_url else _as_it_is
        return "".join(text + ("" if name is None else encode(name, values[name])) for text, name in self.pieces)


@lru_cache(TEMPLATES_KEPT)
def parse(text: str) -> Template:
    """Read a template. Raises `ValueError` for a brace that belongs to nothing."""
    pieces: list[tuple[str, str | None]] = []
    plain = ""
    end = 0
    for token in _TOKEN.finditer(text):
        plain += text[end : token.start()]
        end = token.end()
        if token[1] is not None:
            pieces.append((plain, token[1]))
            plain = ""
        elif len(token[0]) == 1:
            raise ValueError(f"a single {token[0]} at character {token.start() + 1}")
        else:
            plain += token[0][0]
    pieces.append((plain + text[end:], None))
    return Template(tuple(pieces), is_url=_SCHEME.match(text) is not None)


def full_name(secret: SecretTemplate | RenderedSecret) -> str:
    """What the variable is called once Vercel has put the prefix before it, or after `NEXT_PUBLIC_`."""
    if not secret.prefix:
        return secret.name
    if secret.name.startswith(_PUBLIC):
        return f"{_PUBLIC}{secret.prefix}_{secret.name.removeprefix(_PUBLIC)}"
    return f"{secret.prefix}_{secret.name}"


def validate(spec: ResourceSpec) -> tuple[Fault, ...]:
    """Everything wrong with the secrets of a resource, each fault with its field as in the resource's file. Empty: they can be pushed.

    Sizes are judged with the longest login and host that there can be, so that no later rotation outgrows a limit.
    """
    faults = [*_faults_of_the_set(spec)]
    known = frozenset(_widest_values(spec))
    for index, secret in enumerate(spec.secrets):
        field = f"secrets[{index}]"
        faults += _name_faults(field, secret)
        for place, text in _values(field, secret):
            faults += _value_faults(place, text, known)
        faults += _override_faults(field, secret)
    if not faults:
        faults += _size_faults(spec)
    return tuple(faults)


def render(spec: ResourceSpec, server: Server, login: Login) -> tuple[RenderedSecret, ...]:
    """The secrets of a resource for this login. Raises `Invalid` when a template cannot be rendered; no message holds a value."""
    values = {
        "username": login.username,
        "password": login.password.reveal(),
        "database": spec.database.name,
        "host": server.host,
        "port": str(server.port),
    }
    for endpoint in spec.database.endpoints:
        values[f"{endpoint.name}.host"] = endpoint.host
        values[f"{endpoint.name}.port"] = str(endpoint.port)
    faults: list[Fault] = []
    rendered = tuple(_render_one(f"secrets[{index}]", secret, values, faults) for index, secret in enumerate(spec.secrets))
    if faults:
        raise Invalid(faults)
    return rendered


def payload(secrets: Iterable[RenderedSecret], *, owns_all: bool) -> bytes:
    """The body of a push, with exactly the keys that Vercel allows.

    `partial` is always said: false replaces the whole set of the resource's variables, true overwrites only those given.
    """
    return json.dumps({"secrets": [_item(secret) for secret in secrets], "partial": not owns_all}, separators=(",", ":")).encode()


def _item(secret: RenderedSecret) -> dict[str, object]:
    item: dict[str, object] = {"name": secret.name, "value": secret.value.reveal()}
    if secret.prefix:
        item["prefix"] = secret.prefix
    if secret.overrides:
        item["environmentOverrides"] = {environment: value.reveal() for environment, value in secret.overrides}
    return item


def _as_it_is(_name: str, value: str) -> str:
    return value


def _url_part(name: str, value: str) -> str:
    if name.endswith("host") and ":" in value:
        return f"[{value}]"  # an IPv6 address stands in brackets and unencoded: RFC 3986, section 3.2.2
    return quote(value, safe="")


def _values(field: str, secret: SecretTemplate) -> Iterator[tuple[str, str]]:
    yield f"{field}.value", secret.value
    for environment, text in secret.overrides:
        yield f"{field}.{environment}", text


def _render_one(field: str, secret: SecretTemplate, values: Mapping[str, str], faults: list[Fault]) -> RenderedSecret:
    texts = [_render_text(place, text, values, faults) for place, text in _values(field, secret)]
    overrides = tuple((environment, text) for (environment, _), text in zip(secret.overrides, texts[1:], strict=True))
    return RenderedSecret(secret.name, texts[0], secret.prefix or None, overrides)


def _render_text(place: str, text: str, values: Mapping[str, str], faults: list[Fault]) -> Sensitive:
    faults_before = len(faults)
    faults += _value_faults(place, text, values.keys())
    if len(faults) > faults_before:
        return Sensitive("")
    value = parse(text).fill(values)
    if not value:
        faults.append(Fault(place, "is empty once rendered"))
    elif len(value) > LONGEST_VALUE:
        faults.append(Fault(place, f"is longer than {LONGEST_VALUE} characters once rendered"))
    elif _CONTROL.search(value):
        faults.append(Fault(place, "has control characters once rendered"))
    return Sensitive(value)


def _faults_of_the_set(spec: ResourceSpec) -> Iterator[Fault]:
    if not spec.secrets:
        yield Fault("secrets", "there is none", "name at least one variable, e.g. DATABASE_URL, or a template_set")
        return
    if len(spec.secrets) > MOST_SECRETS:
        yield Fault("secrets", f"there are {len(spec.secrets)}, Vercel takes at most {MOST_SECRETS}")
    if not any("password" in _placeholders(text) for secret in spec.secrets for _, text in _values("", secret)):
        yield Fault("secrets", "none holds {password}", "a rotation would change nothing for the customer")
    yield from _doubles(spec)


def _doubles(spec: ResourceSpec) -> Iterator[Fault]:
    # Bare names must differ even under different prefixes: a customer's own prefix replaces ours, and they would collide.
    bare: dict[str, int] = {}
    full: dict[str, int] = {}
    for index, secret in enumerate(spec.secrets):
        first = bare.setdefault(secret.name, index)
        if first != index:
            yield Fault(f"secrets[{index}].name", f"the same name as secrets[{first}]")
            continue
        first = full.setdefault(full_name(secret), index)
        if first != index:
            yield Fault(f"secrets[{index}].name", f"with its prefix the same name as secrets[{first}]")


def _name_faults(field: str, secret: SecretTemplate) -> Iterator[Fault]:
    parts = [("name", secret.name)] + ([] if secret.prefix is None else [("prefix", secret.prefix)])
    for part, text in parts:
        if not _NAME.fullmatch(text):
            yield Fault(f"{field}.{part}", "is not a variable's name", "letters, digits and underscores, not beginning with a digit")
    if len(full_name(secret)) > LONGEST_NAME:
        yield Fault(f"{field}.name", f"is longer than {LONGEST_NAME} characters, its prefix included")


def _value_faults(place: str, text: str, known: Iterable[str]) -> Iterator[Fault]:
    if not text:
        yield Fault(place, "is empty", "Vercel refuses empty values")
        return
    if _CONTROL.search(text):
        yield Fault(place, "has control characters")
    try:
        template = parse(text)
    except ValueError as error:
        yield Fault(place, str(error), "write {{ or }} for a brace")
        return
    names = sorted(known)
    for placeholder in template.placeholders:
        if placeholder not in names:
            yield Fault(place, f"unknown placeholder {{{placeholder[:64]}}}", "known: " + ", ".join(f"{{{name}}}" for name in names))


def _override_faults(field: str, secret: SecretTemplate) -> Iterator[Fault]:
    seen: set[str] = set()
    for environment, _ in secret.overrides:
        if environment not in ENVIRONMENTS:
            yield Fault(f"{field}.{environment}", "is not an environment", "known: " + ", ".join(ENVIRONMENTS))
        if environment in seen:
            yield Fault(f"{field}.{environment}", "is given twice")
        seen.add(environment)


def _placeholders(text: str) -> tuple[str, ...]:
    try:
        return parse(text).placeholders
    except ValueError:
        return ()


def _widest_values(spec: ResourceSpec) -> dict[str, str]:
    values = {
        "username": _WIDEST_USERNAME,
        "password": "%" * spec.password_length,  # each character takes three in a URL
        "database": spec.database.name,
        "host": _WIDEST_HOST,
        "port": _WIDEST_PORT,
    }
    for endpoint in spec.database.endpoints:
        values[f"{endpoint.name}.host"] = endpoint.host
        values[f"{endpoint.name}.port"] = str(endpoint.port)
    return values


def _size_faults(spec: ResourceSpec) -> Iterator[Fault]:
    values = _widest_values(spec)
    totals = dict.fromkeys((None, *ENVIRONMENTS), 0)
    for index, secret in enumerate(spec.secrets):
        texts = {place: parse(text).fill(values) for place, text in _values(f"secrets[{index}]", secret)}
        for place, text in texts.items():
            if len(text) > LONGEST_VALUE:
                yield Fault(place, f"can grow beyond {LONGEST_VALUE} characters")
        for environment in totals:
            place = f"secrets[{index}].{environment}"
            text = texts.get(place, texts[f"secrets[{index}].value"])
            totals[environment] += len(full_name(secret).encode()) + len(text.encode())
    for environment, total in totals.items():
        if total >= LARGEST_TOTAL:
            where = "" if environment is None else f" in {environment}"
            yield Fault("secrets", f"names and values together can grow to {total} bytes{where}", f"Vercel takes less than {LARGEST_TOTAL}")
            return
