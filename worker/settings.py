"""The settings: variables that begin with ROLLOVER_, read once, checked together, and never changed.

A secret can also stand in a file that `ROLLOVER_<NAME>_FILE` names, as container platforms hand them over. A variable that is set to
nothing counts as not set. `load` reads; nothing happens on import.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from rotation.errors import Fault, Invalid
from rotation.ports import Terms
from rotation.sensitive import Sensitive
from rotation.states import PushBy
from worker.addresses import broker_address, masked_address, service_address, sqlite_address, store_address
from worker.durations import format_duration, parse_duration
from worker.faults import told
from worker.variables import PREFIX, Origin, Variables, read_variables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import URL

SECRETS = frozenset({"store_url", "broker_url", "keys", "audit_key", "vercel_client_secret"})
"""The settings that can also be given as a file, by `ROLLOVER_<NAME>_FILE`."""
LONGEST_CLAIM = 45
"""Seconds; a lost worker's row is free again within this, so that it is resumed within a minute."""
LONGEST_MENDING = 10
"""Seconds for putting a login right: an emergency waits for it, and has 30 in all."""
SHORTEST_AUDIT_KEY = 32
"""Characters of a key for the audit chain."""


def _secret(given: object) -> Sensitive:
    return given if isinstance(given, Sensitive) else Sensitive(str(given))


def _duration(given: object) -> timedelta:
    return given if isinstance(given, timedelta) else parse_duration(str(given))


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("is relative, so that each process would look elsewhere: write it from / on")
    return path


def _store(secret: Sensitive) -> Sensitive:
    store_address(secret.reveal())
    return secret


def _broker(secret: Sensitive) -> Sensitive:
    return Sensitive(broker_address(secret.reveal()))


def _long_enough(secret: Sensitive) -> Sensitive:
    if len(secret) < SHORTEST_AUDIT_KEY:
        raise ValueError(f"is too short to be a key: give at least {SHORTEST_AUDIT_KEY} random characters")
    return secret


Secret = Annotated[Sensitive, BeforeValidator(_secret)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
Directory = Annotated[Path, AfterValidator(_absolute)]
Service = Annotated[str, AfterValidator(service_address)]


class LogFormat(StrEnum):
    """How log lines look: for a person at a terminal, or one JSON object a line."""

    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The least important lines that are still written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class RateScope(StrEnum):
    """Whether Vercel's rate limit is shared by all installations or counted for each."""

    INTEGRATION = "integration"
    INSTALLATION = "installation"


class Row(NamedTuple):
    """One setting as a person may see it: the variable, its masked value, and where it came from."""

    name: str
    value: str
    source: str


class Settings(BaseSettings):
    """Everything that can be set. Made by `load` alone."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        validate_default=False,
    )

    data_dir: Directory = Field(
        description=(
            "Where this machine keeps its store, keys and embedded broker. Default: `$XDG_STATE_HOME/rollover`, else "
            "`~/.local/state/rollover`."
        ),
    )
    store_url: Annotated[Secret, AfterValidator(_store)] | None = Field(
        default=None,
        description=(
            "The store: `postgresql://user:password@host/database` or `sqlite:////directory/file.db`. Default: `rollover.db` in "
            "the data directory."
        ),
    )
    broker_url: Annotated[Secret, AfterValidator(_broker)] | None = Field(
        default=None,
        description=(
            "The broker: `redis://`, `rediss://`, `amqp://` or `amqps://`. Default: `rollover up` starts one of its own. With TLS its "
            "certificate is verified; a root of your own is named in `SSL_CERT_FILE`."
        ),
    )
    keys: Secret | None = Field(
        default=None,
        description=(
            "The keyring that seals passwords. Required where the store is PostgreSQL. Default: `rollover.keys` in the data "
            "directory, made on first use."
        ),
    )
    audit_key: Annotated[Secret, AfterValidator(_long_enough)] | None = Field(
        default=None,
        description="The key of the audit chain, at least 32 characters. Default: the key for `audit` in the keyring.",
    )
    vercel_api_url: Service = Field(
        default="https://api.vercel.com", description="Where Vercel's API is. `http://` is for this machine alone."
    )
    vercel_endpoint: PushBy = Field(
        default=PushBy.RESOURCE,
        description=(
            "Which of Vercel's two endpoints takes secrets, for resources whose file does not say: `resource`, or the deprecated `product`."
        ),
    )
    vercel_default_grace: Duration = Field(
        default=timedelta(hours=1),
        description=(
            "How long old secrets work after a rotation that Vercel asked for without naming a time, for resources whose file does not say."
        ),
    )
    vercel_client_id: str | None = Field(
        default=None, min_length=1, description="The client id of short-lived tokens. With it go the client secret and the token URL."
    )
    vercel_client_secret: Secret | None = Field(default=None, description="The client secret of short-lived tokens.")
    vercel_token_url: Service | None = Field(default=None, description="Where short-lived tokens come from.")
    vercel_integration_id: str | None = Field(
        default=None, min_length=1, description="The id of your integration, `oac_…`: whom Vercel's calls are for. `rollover web` needs it."
    )
    vercel_issuer: str = Field(
        default="https://marketplace.vercel.com", min_length=1, description="Who signs the tokens of Vercel's calls."
    )
    vercel_keys_url: Service = Field(
        default="https://marketplace.vercel.com/.well-known/jwks", description="Where the keys are that those tokens are signed with."
    )
    web_host: str = Field(default="127.0.0.1", min_length=1, description="The address at which `rollover web` answers.")
    web_port: int = Field(default=8080, ge=1, le=65_535, description="The port at which `rollover web` answers.")
    vercel_rate_per_minute: int = Field(default=240, ge=1, le=100_000, description="How many pushes a minute Vercel takes.")
    vercel_rate_scope: RateScope = Field(
        default=RateScope.INTEGRATION,
        description="Whether that limit is shared by all installations (`integration`) or counted for each (`installation`).",
    )
    tick_seconds: Annotated[Seconds, Field(ge=0.1, le=60)] = Field(default=5, description="How often beat looks for what is due.")
    claim_seconds: Annotated[Seconds, Field(le=LONGEST_CLAIM)] = Field(
        default=LONGEST_CLAIM,
        description="How long a worker holds a row before others may take it; renewed at each step.",
    )
    call_deadline_seconds: Seconds = Field(
        default=20, description="The longest that one call to a database or to Vercel may take. Less than the claim."
    )
    server_allowance_seconds: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = Field(
        default=300,
        description="How long a push that got no answer may still be applied by somebody on its way. Small only in the sandbox.",
    )
    visibility_timeout_seconds: Seconds = Field(default=300, description="When Redis gives a lost message again. More than the claim.")
    hint_seconds: Seconds = Field(default=30, description="How long a row that was sent to the workers is not sent again.")
    usage_sample_seconds: Seconds = Field(default=60, description="How often the sessions of each database server are looked at.")
    look_seconds: Seconds = Field(
        default=60, description="How often the logins of each database server are looked at, whether each is as its row says."
    )
    login_check_seconds: Seconds = Field(
        default=900, description="How often each login that must work is tried with its password; at most 20 of a server at each look."
    )
    max_grace: Duration = Field(default=timedelta(days=30), description="The longest grace period that anybody may ask for.")
    allow_private_hosts: bool = Field(
        default=False,
        description="Whether a database may be at a loopback, link-local or metadata address: for trying things out on one machine.",
    )
    worker_threads: int = Field(
        default=8, ge=1, le=1_000, description="How many rotations and retirements one worker process carries on at once."
    )
    server_threads: int | None = Field(
        default=None,
        ge=1,
        le=1_000,
        description=(
            "How many threads of a worker process may be busy with one database server, so that one that hangs leaves the others alone. "
            "Default: half of them. Where there is only one server, give it all of them."
        ),
    )
    log_format: LogFormat = Field(default=LogFormat.CONSOLE, description="`console` for people, `json` for machines.")
    log_level: LogLevel = Field(default=LogLevel.INFO, description="`debug`, `info`, `warning` or `error`.")
    sandbox_postgresql_bin: Directory | None = Field(
        default=None,
        description=(
            "The directory of PostgreSQL's programs for the sandbox. Default: those that were installed with this program, else "
            "the system's newest."
        ),
    )

    _origins: Mapping[str, Origin] = PrivateAttr(default_factory=dict)

    def __init__(self, variables: Variables) -> None:
        super().__init__(variables=variables)
        self._origins = variables.origins

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the library's signature; it has read os.environ, which is not ours to read
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the same: there is no .env file
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the same: files are named one by one
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the variables that were handed over count, so that a test or a child process gets exactly what it was given."""
        source = EnvSettingsSource(settings_cls)
        source.env_vars = {PREFIX.lower() + name: value for name, value in init_settings()["variables"].values.items()}
        return (source,)

    @property
    def store(self) -> URL:
        """The store's URL for SQLAlchemy; hand it to `create_engine`, never to a log."""
        return store_address(self.store_url.reveal()) if self.store_url else sqlite_address(self.data_dir / "rollover.db")

    @property
    def store_is_shared(self) -> bool:
        """Whether the store is PostgreSQL: then keys must be configured, since a key made here would be missing on the next machine."""
        return self.store_url is not None and self.store.get_backend_name() == "postgresql"

    @property
    def keys_path(self) -> Path | None:
        """The file of the keyring, which may not exist yet; None where `KEYS` holds the keyring itself."""
        origin = self._origins.get("keys")
        return origin.path if origin else self.data_dir / "rollover.keys"

    def terms(self) -> Terms:
        """How long things may take, as the subject wants to know it."""
        return Terms(
            claim=timedelta(seconds=self.claim_seconds),
            call_deadline=timedelta(seconds=self.call_deadline_seconds),
            server_allowance=timedelta(seconds=self.server_allowance_seconds),
            hint=timedelta(seconds=self.hint_seconds),
            usage_sample=timedelta(seconds=self.usage_sample_seconds),
            look=timedelta(seconds=self.look_seconds),
            login_check=timedelta(seconds=self.login_check_seconds),
            mending=timedelta(seconds=min(LONGEST_MENDING, self.call_deadline_seconds)),
        )

    @property
    def threads_for_a_server(self) -> int:
        """How many threads of this process one database server may keep busy."""
        return self.server_threads or (self.worker_threads + 1) // 2

    @property
    def threads_for_vercel(self) -> int:
        """How many threads of this process may be waiting for Vercel: all but a quarter, which goes on with what needs no Vercel."""
        return self.worker_threads - self.worker_threads // 4

    def secrets(self) -> tuple[Sensitive, ...]:
        """Every secret that was set, for the redactor of the logs."""
        return tuple(secret for name in sorted(SECRETS) if (secret := getattr(self, name)) is not None)

    def effective(self) -> tuple[Row, ...]:
        """Every setting for `rollover settings`. Of a secret, at most that it is set; of an address, no login and no options."""
        return tuple(self._row(field) for field in type(self).model_fields)

    def _row(self, field: str) -> Row:
        origin = self._origins.get(field)
        value = masked_store(self.store) if field == "store_url" else _shown(field, getattr(self, field))
        return Row(PREFIX + field.upper(), value, origin.source if origin else "default")


def masked_store(url: URL) -> str:
    """The store's address for people, without login and options."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{url.database}"
    return masked_address(url.render_as_string(hide_password=True))


def _shown(field: str, value: object) -> str:
    match value:
        case None:
            return ""
        case Sensitive():
            return masked_address(value.reveal()) if field == "broker_url" else "[hidden]"
        case timedelta():
            return format_duration(value)
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def load(environ: Mapping[str, str]) -> Settings:
    """The settings that these variables make. Raises `Invalid` with every fault at once; none repeats a value."""
    variables = read_variables(environ, tuple(Settings.model_fields), SECRETS)
    faults = list(variables.faults)
    broken: set[str] = {fault.field.removeprefix(PREFIX).removesuffix("_FILE").lower() for fault in faults}
    settings: Settings | None = None
    while settings is None:
        try:
            settings = Settings(variables)
        except ValidationError as error:
            wrong = {str(one["loc"][0]): told(one) for one in error.errors(include_url=False, include_input=False)}
            faults += [Fault(PREFIX + name.upper(), problem) for name, problem in wrong.items()]
            broken |= wrong.keys()
            variables = variables.without(wrong.keys())
    faults += [fault for names, fault in _disagreements(settings) if not broken & names]
    if faults:
        raise Invalid(faults)
    return settings


def _disagreements(settings: Settings) -> Iterator[tuple[frozenset[str], Fault]]:
    """What is wrong between settings that are each right: the settings' names, and the fault."""
    if settings.call_deadline_seconds >= settings.claim_seconds:
        yield (
            frozenset({"call_deadline_seconds", "claim_seconds"}),
            Fault(
                "ROLLOVER_CALL_DEADLINE_SECONDS",
                f"is {settings.call_deadline_seconds:g}, not less than ROLLOVER_CLAIM_SECONDS, {settings.claim_seconds:g}",
                "a call must end while its worker still holds the row",
            ),
        )
    if settings.claim_seconds >= settings.visibility_timeout_seconds:
        yield (
            frozenset({"claim_seconds", "visibility_timeout_seconds"}),
            Fault(
                "ROLLOVER_VISIBILITY_TIMEOUT_SECONDS",
                f"is {settings.visibility_timeout_seconds:g}, not more than ROLLOVER_CLAIM_SECONDS, {settings.claim_seconds:g}",
                "a message must not come again while its first worker is at it",
            ),
        )
    client = {"vercel_client_id", "vercel_client_secret", "vercel_token_url"}
    missing = sorted(name for name in client if getattr(settings, name) is None)
    if missing and len(missing) < len(client):
        for name in missing:
            yield (
                frozenset(client),
                Fault(PREFIX + name.upper(), "is missing", "short-lived tokens need client id, client secret and token URL"),
            )
    if settings.vercel_default_grace > settings.max_grace:
        yield (
            frozenset({"vercel_default_grace", "max_grace"}),
            Fault("ROLLOVER_VERCEL_DEFAULT_GRACE", "is longer than ROLLOVER_MAX_GRACE", "shorten the one or lengthen the other"),
        )
    if settings.store_is_shared and settings.keys is None:
        yield (
            frozenset({"keys", "store_url"}),
            Fault(
                "ROLLOVER_KEYS",
                "is required where the store is PostgreSQL",
                "`rollover keys create` makes a key file; name it in ROLLOVER_KEYS_FILE",
            ),
        )
