"""What may stand in the TOML files by which people describe servers and resources: every key, its type, its default and its meaning.

The reference in `docs/resource-file.md` is made from these classes. Values are checked one by one here; `worker.inventory` checks what
they say together.
"""

from __future__ import annotations

import re
from datetime import time, timedelta
from ipaddress import IPv6Address
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rotation.engines.logins import SHORTEST_PASSWORD
from rotation.model import Window
from rotation.states import InUse, PushBy
from worker.durations import parse_duration

LONGEST_IDENTIFIER = 63
"""Bytes: PostgreSQL cuts off what is longer."""
LONGEST_PREFIX = 40
LONGEST_DURATION = timedelta(days=3650)

ENDPOINTS = "[NAME]"
"""Stands for the name of an endpoint's table where keys are listed."""

_PREFIX = re.compile(r"[a-z_][a-z0-9_]*")
_WINDOW = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def _duration(given: object) -> timedelta:
    if not isinstance(given, str):
        raise ValueError("must be a text in quotes, such as 24h")  # noqa: TRY004  # pydantic turns only a ValueError into a fault
    duration = parse_duration(given)
    if duration > LONGEST_DURATION:
        raise ValueError("is longer than ten years")
    return duration


def _window(given: object) -> Window:
    written = _WINDOW.fullmatch(given) if isinstance(given, str) else None
    if written is None:
        raise ValueError('must be two times of day, such as "01:00-05:00" or "22:00-02:00"')
    from_hour, from_minute, to_hour, to_minute = map(int, written.groups())
    window = Window(time(from_hour, from_minute), time(to_hour, to_minute))
    if window.start == window.end:
        raise ValueError("ends when it begins: leave it out to allow every hour")
    return window


def _identifier(text: str) -> str:
    if len(text.encode()) > LONGEST_IDENTIFIER:
        raise ValueError(f"is longer than {LONGEST_IDENTIFIER} bytes, so the database would cut it off")
    return text


def _login_prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise ValueError("must be of a-z, 0-9 and _, and not begin with a digit")
    if len(text) > LONGEST_PREFIX:
        raise ValueError(f"is longer than {LONGEST_PREFIX} characters, so that a login's name would exceed {LONGEST_IDENTIFIER} bytes")
    if text.startswith("pg_"):
        raise ValueError("begins with pg_, which PostgreSQL keeps for itself")
    return text


def _host(text: str) -> str:
    if text.startswith("[") or "/" in text or "," in text or "@" in text:
        raise ValueError("must be one host name or address alone, without brackets, port, path or login")
    labels = text.removesuffix(".").split(".")
    if ":" in text:
        return _ipv6(text)
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):  # noqa: PLR2004  # RFC 1035, section 2.3.4
        raise ValueError("is not a host name or address")
    if labels[-1].isdigit() and not re.fullmatch(r"((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.|$)){4}", text):
        # resolvers read 127.1, 0x7f.1 or 2130706433 as addresses: only the form with four numbers is unambiguous
        raise ValueError("is not a host name, nor an address of four numbers")
    return text


def _ipv6(text: str) -> str:
    try:
        IPv6Address(text)
    except ValueError:
        raise ValueError("is not a host name or address (the port has a key of its own)") from None
    return text


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("has control characters, or spaces at its ends")
    return text


def _path_segment(text: str) -> str:
    if text in (".", ".."):
        raise ValueError("would be lost in the path of a URL")
    return text


Text = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_printable)]
Segment = Annotated[Text, AfterValidator(_path_segment)]
Identifier = Annotated[str, Field(min_length=1), AfterValidator(_printable), AfterValidator(_identifier)]
Host = Annotated[Text, AfterValidator(_host)]
Port = Annotated[int, Field(strict=True, ge=1, le=65_535)]
Switch = Annotated[bool, Field(strict=True)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
TemplateText = Annotated[str, Field(max_length=65_536)]


class Document(BaseModel):
    """What holds for every table: no unknown keys, and no fault that repeats what was given."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True)


class ServerDocument(Document):
    """A database server."""

    name: Text = Field(description="How resources name it.")
    engine: Text = Field(description="The kind of database: `postgresql`.")
    host: Host = Field(description="Where the server itself listens: one host name or address. A pooler is an endpoint of a resource.")
    port: Port = Field(description="The port on which it listens.")
    sslmode: Literal["verify-full", "verify-ca", "require", "disable"] = Field(
        default="verify-full",
        description="How TLS is checked. `require` and `disable` only where `ROLLOVER_ALLOW_PRIVATE_HOSTS` is true: nothing is verified.",
    )
    sslrootcert: Text | None = Field(
        default=None,
        description="The file of the authority that signed the server's certificate, or `system`. A relative path begins at this file.",
    )
    admin_url_file: Text | None = Field(
        default=None,
        description="The file that holds the admin's URL, read by the workers when they need it. A relative path begins at this file.",
    )
    admin_url_env: Text | None = Field(
        default=None,
        description="The environment variable that holds the admin's URL. One of the two is needed.",
    )
    connections: Annotated[int, Field(strict=True, ge=1, le=1_000)] = Field(
        default=8,
        description="How many connections at most each worker process keeps open for the admin.",
    )


class EndpointDocument(Document):
    """Another place where the database is published, such as a pooler."""

    host: Host = Field(description="Where it listens. In templates: `{NAME.host}`.")
    port: Port = Field(description="The port on which it listens. In templates: `{NAME.port}`.")


class DatabaseDocument(Document):
    """Where the resource lives on its server."""

    server: Text = Field(description="The name of the server.")
    name: Identifier = Field(description="The name of the database.")
    owner_role: Identifier = Field(description="The group without login that owns the objects; every login is a member of it.")
    login_prefix: Annotated[str, AfterValidator(_login_prefix)] = Field(
        description="How the names of new logins begin: `a-z`, `0-9` and `_`, at most 40 characters; on its server nobody else's.",
    )
    endpoints: dict[str, EndpointDocument] = Field(
        default_factory=dict,
        alias="[NAME]",
        description="Other places where it is published, verified and proved too; each a table of its own, such as `[database.pooled]`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, given: object) -> object:
        """Every table in this one that is no key of its own is an endpoint by its name."""
        if not isinstance(given, dict):
            return given
        tables = {
            key: value for key, value in given.items() if isinstance(value, dict) and key not in cls.model_fields.keys() - {"endpoints"}
        }
        return {key: value for key, value in given.items() if key not in tables} | {ENDPOINTS: tables}


class PolicyDocument(Document):
    """When the resource rotates and how long grace lasts. Without `every` and `cron` it rotates on demand only."""

    every: Duration | None = Field(default=None, description="The time from one completed rotation to the next, such as `30d`.")
    cron: Text | None = Field(default=None, description="Five fields, such as `0 3 * * SUN`, instead of `every`.")
    timezone: Text = Field(default="UTC", description="The IANA time zone of `cron` and `window`, such as `Europe/Berlin`.")
    window: Annotated[Window, BeforeValidator(_window)] | None = Field(
        default=None,
        description="The hours in which a scheduled rotation may begin, such as `01:00-05:00`; `22:00-02:00` goes over midnight.",
    )
    jitter: Duration | None = Field(
        default=None,
        description=(
            "How far a fleet is spread: each resource is later by a share of this, always the same. Default: a tenth of `every`, at "
            "most `6h`; nothing with `cron`."
        ),
    )
    grace: Duration = Field(
        default=timedelta(hours=24), description="How long the old login works after a rotation by schedule or by hand."
    )
    grace_vercel: Duration | None = Field(
        default=None,
        description="The same after one that Vercel asked for without naming a time. Default: `ROLLOVER_VERCEL_DEFAULT_GRACE`.",
    )
    in_use: InUse = Field(default=InUse.WAIT, description="When grace is over and the old login is still used: `wait`, or `proceed`.")
    in_use_vercel: InUse = Field(default=InUse.PROCEED, description="The same after a rotation that Vercel asked for.")
    in_use_cap: Duration | None = Field(default=None, description="How long `wait` waits at most. Default: without end, with an alarm.")
    quiet: Duration = Field(
        default=timedelta(hours=6),
        description="A login counts as used if it was seen within this time; at most half of the grace is used.",
    )
    blocked: Duration = Field(
        default=timedelta(minutes=10),
        description="How long an old login is only blocked, which can be undone, before it is removed.",
    )


class SecretDocument(Document):
    """One environment variable."""

    name: Text = Field(description="The name without prefix.")
    value: TemplateText = Field(
        description=(
            "The template: `{username}`, `{password}`, `{host}`, `{port}`, `{database}`, and of other endpoints `{NAME.host}` and "
            "`{NAME.port}`. In a URL each value is percent-encoded."
        ),
    )
    prefix: Text | None = Field(
        default=None, description="What Vercel puts before the name, with `_` between. Default: the file's `prefix`."
    )
    development: TemplateText | None = Field(default=None, description="Another template for the development environment.")
    preview: TemplateText | None = Field(default=None, description="Another template for the preview environment.")
    production: TemplateText | None = Field(default=None, description="Another template for the production environment.")


class CurrentDocument(Document):
    """The login that is in use now: `rollover resource adopt` prepares it. Without this table the resource is empty."""

    username: Identifier = Field(description="Its name, as the database has it.")
    password_file: Text | None = Field(
        default=None,
        description="The file that holds its password and nothing else. A relative path begins at this file.",
    )
    password_env: Text | None = Field(default=None, description="The environment variable that holds it. One of the two is needed.")


class ResourceDocument(Document):
    """A resource."""

    installation: Segment = Field(description="The installation that it belongs to, such as `icfg_1`.")
    id: Segment = Field(description="Your own id of the resource, as Vercel knows it.")
    product: Segment = Field(description="The id or slug of the product.")
    engine: Text = Field(description="The kind of database: `postgresql`.")
    owns_all_secrets: Switch = Field(
        description="`true`: each push replaces the resource's whole set of variables. `false`: it touches only those named here.",
    )
    endpoint: PushBy | None = Field(
        default=None,
        description="Which of Vercel's endpoints takes the secrets: `resource` or `product`. Default: `ROLLOVER_VERCEL_ENDPOINT`.",
    )
    notify: Switch = Field(default=True, description="Whether the customer is told, on Vercel's dashboard, what they must do.")
    password_length: Annotated[int, Field(strict=True, ge=SHORTEST_PASSWORD, le=128)] = Field(
        default=SHORTEST_PASSWORD,
        description="Characters of a new password: 32 to 128.",
    )
    template_set: Text | None = Field(
        default=None,
        description="A ready set of templates by its name. `[[secrets]]` adds to it, or replaces one of the same name.",
    )
    prefix: Text | None = Field(default=None, description="The prefix of every secret that does not have its own.")
    database: DatabaseDocument = Field(description="Where the resource lives.")
    policy: PolicyDocument = Field(default_factory=PolicyDocument, description="When it rotates.")
    secrets: list[SecretDocument] = Field(default_factory=list, description="The variables.")
    current: CurrentDocument | None = Field(default=None, description="The login that is in use now.")
