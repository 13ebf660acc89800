"""Reads the TOML files by which people describe servers and resources, and tells every fault of a file at once, with its line.

Nothing here repeats a value of `[[secrets]]` or a password. Paths in a file are relative to the directory of that file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rotation.errors import Fault
from rotation.model import Database, Endpoint, Login, Policy, ResourceSpec, SecretTemplate, Server
from rotation.policy import faults as policy_faults
from rotation.sensitive import Sensitive
from rotation.states import PushBy
from rotation.vercel.secrets import validate
from rotation.vercel.template_sets import TEMPLATE_SETS
from worker.addresses import is_guarded
from worker.documents import ResourceDocument, SecretDocument, ServerDocument
from worker.faults import did_you_mean
from worker.toml_files import Reading, checked, parsed, shown, text_of
from worker.variables import PREFIX, UnreadableSecretError, read_secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from worker.documents import CurrentDocument, PolicyDocument
    from worker.settings import Settings

_ENDPOINT = re.compile(r"[a-z][a-z0-9_]{0,39}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_READABLE_BY_OTHERS = 0o077


LONGEST_DEFAULT_JITTER = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a file is held against: the engines and template sets that there are, and the settings that fill in for what it does not say."""

    engines: frozenset[str] = frozenset({"postgresql"})
    template_sets: Mapping[str, tuple[SecretTemplate, ...]] = field(default_factory=lambda: TEMPLATE_SETS)
    push_by: PushBy = PushBy.RESOURCE
    grace_vercel: timedelta = timedelta(hours=1)
    max_grace: timedelta = timedelta(days=30)
    allow_private_hosts: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """The rules that these settings make."""
        return cls(
            push_by=settings.vercel_endpoint,
            grace_vercel=settings.vercel_default_grace,
            max_grace=settings.max_grace,
            allow_private_hosts=settings.allow_private_hosts,
        )


@dataclass(frozen=True, slots=True)
class ServerFile:
    """A server as its file describes it, and what is doubtful about it."""

    server: Server
    warnings: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class ResourceFile:
    """A resource as its file describes it, the login that is in use now, if there is one, and what is doubtful about it."""

    spec: ResourceSpec
    current: Login | None = None
    warnings: tuple[Fault, ...] = ()


def read_server(path: Path, rules: Rules) -> ServerFile:
    """The server that a file describes. Raises `Invalid` with every fault."""
    return parse_server(text_of(path), path.absolute().parent, rules)


def parse_server(text: str, directory: Path, rules: Rules) -> ServerFile:
    """The same for the text of a file that stands in `directory`."""
    reading = parsed(text)
    document = checked(ServerDocument, reading)
    reading.extend(_server_faults(document, rules))
    reading.stop_if_wrong()
    server = Server(
        name=document.name,
        engine=document.engine,
        host=document.host,
        port=document.port,
        sslmode=document.sslmode,
        sslrootcert=_certificate(document.sslrootcert, directory),
        admin_url_file=str(directory / document.admin_url_file) if document.admin_url_file else None,
        admin_url_env=document.admin_url_env,
        connections=document.connections,
    )
    return ServerFile(server, tuple(reading.located(_server_warnings(server))))


def read_resource(path: Path, rules: Rules, environ: Mapping[str, str]) -> ResourceFile:
    """The resource that a file describes; `environ` is where `password_env` is looked up. Raises `Invalid` with every fault."""
    return parse_resource(text_of(path), path.absolute().parent, rules, environ)


def parse_resource(text: str, directory: Path, rules: Rules, environ: Mapping[str, str]) -> ResourceFile:
    """The same for the text of a file that stands in `directory`."""
    reading = parsed(text)
    document = checked(ResourceDocument, reading)
    spec = _spec(document, rules)
    reading.extend(_resource_faults(document, spec, rules))
    reading.extend(_secret_faults(document, spec))
    current = _current(document.current, directory, environ, reading) if document.current else None
    reading.stop_if_wrong()
    warnings = [*_policy_warnings(spec.policy), *(_permissions("current.password_file", directory, document.current))]
    return ResourceFile(spec, current, tuple(reading.located(warnings)))


# Servers


def _server_faults(document: ServerDocument, rules: Rules) -> Iterator[Fault]:
    yield from _engine_faults(document.engine, rules)
    yield from _host_faults("host", document.host, rules)
    if document.sslmode in ("require", "disable") and not rules.allow_private_hosts:
        yield Fault("sslmode", "does not verify whom it talks to", "use verify-full, and name the authority's certificate in sslrootcert")
    if (document.admin_url_file is None) == (document.admin_url_env is None):
        problem = "is missing" if document.admin_url_file is None else "stands beside admin_url_env"
        yield Fault("admin_url_file", problem, "name the admin's URL by one of admin_url_file and admin_url_env")
    if document.admin_url_env is not None:
        yield from _variable_faults("admin_url_env", document.admin_url_env)


def _server_warnings(server: Server) -> Iterator[Fault]:
    if server.admin_url_file is not None:
        yield from _file_warnings("admin_url_file", Path(server.admin_url_file), secret=True)
    if server.sslrootcert not in (None, "system"):
        yield from _file_warnings("sslrootcert", Path(str(server.sslrootcert)), secret=False)


def _certificate(written: str | None, directory: Path) -> str | None:
    return written if written in (None, "system") else str(directory / str(written))


def _engine_faults(engine: str, rules: Rules) -> Iterator[Fault]:
    if engine not in rules.engines:
        known = ", ".join(sorted(rules.engines))
        yield Fault(
            "engine", "is not a kind of database that this program rotates", did_you_mean(engine, rules.engines) or f"known: {known}"
        )


def _host_faults(name: str, host: str, rules: Rules) -> Iterator[Fault]:
    if is_guarded(host) and not rules.allow_private_hosts:
        yield Fault(
            name, "is this machine itself, a link-local address or a metadata service", f"set {PREFIX}ALLOW_PRIVATE_HOSTS to allow it"
        )


def _variable_faults(name: str, variable: str) -> Iterator[Fault]:
    if not _VARIABLE.fullmatch(variable):
        yield Fault(name, "is not the name of an environment variable", "give the name, not the value")
    elif variable.startswith(PREFIX):
        yield Fault(name, f"begins with {PREFIX}, which is for settings", "choose another name")


def _file_warnings(name: str, path: Path, *, secret: bool) -> Iterator[Fault]:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        yield Fault(name, f"names a file that cannot be read from here: {error.strerror}", "the workers need it")
        return
    if secret and mode & _READABLE_BY_OTHERS:
        yield Fault(name, "names a file that others on this machine can read or change", "chmod 600")


# Resources


def _spec(document: ResourceDocument, rules: Rules) -> ResourceSpec:
    database = document.database
    return ResourceSpec(
        installation_id=document.installation,
        external_id=document.id,
        product=document.product,
        engine=document.engine,
        owns_all_secrets=document.owns_all_secrets,
        database=Database(
            server=database.server,
            name=database.name,
            owner_role=database.owner_role,
            login_prefix=database.login_prefix,
            endpoints=tuple(Endpoint(name, one.host, one.port) for name, one in database.endpoints.items()),
        ),
        secrets=_secrets(document, rules),
        policy=_policy(document.policy, rules),
        push_by=document.endpoint or rules.push_by,
        notify=document.notify,
        password_length=document.password_length,
    )


def _policy(document: PolicyDocument, rules: Rules) -> Policy:
    values = {name: getattr(document, name) for name in type(document).model_fields}
    if values["grace_vercel"] is None:
        values["grace_vercel"] = rules.grace_vercel
    if values["jitter"] is None:  # a fleet that is imported in one day must not rotate in one minute
        values["jitter"] = timedelta(0) if document.every is None else min(document.every / 10, LONGEST_DEFAULT_JITTER)
    return Policy(**values)


def _secrets(document: ResourceDocument, rules: Rules) -> tuple[SecretTemplate, ...]:
    """The file's own secrets first, so that a fault's number is that of the file; then what the set has besides."""
    own = tuple(_template(one, document.prefix) for one in document.secrets)
    names = {one.name for one in own}
    ready = rules.template_sets.get(document.template_set or "", ())
    rest = (SecretTemplate(one.name, one.value, one.prefix or document.prefix, one.overrides) for one in ready if one.name not in names)
    return (*own, *rest)


def _template(document: SecretDocument, prefix: str | None) -> SecretTemplate:
    environments = ("development", "preview", "production")
    overrides = tuple((name, getattr(document, name)) for name in environments if getattr(document, name) is not None)
    return SecretTemplate(document.name, document.value, document.prefix or prefix, overrides)


def _resource_faults(document: ResourceDocument, spec: ResourceSpec, rules: Rules) -> Iterator[Fault]:
    if document.template_set is not None and document.template_set not in rules.template_sets:
        known = ", ".join(sorted(rules.template_sets)) or "none"
        advice = did_you_mean(document.template_set, rules.template_sets) or f"known: {known}"
        yield Fault("template_set", "is not known", advice)
    yield from _engine_faults(document.engine, rules)
    if "/" in document.installation:
        yield Fault("installation", "has a slash in it", "resources are called INSTALLATION/ID")
    for endpoint in spec.database.endpoints:
        where = f"database.{shown(endpoint.name)}"
        if not _ENDPOINT.fullmatch(endpoint.name):
            yield Fault(where, "is not the name of an endpoint", "a-z, 0-9 and _, beginning with a letter, at most 40 characters")
        yield from _host_faults(f"{where}.host", endpoint.host, rules)
    for fault in policy_faults(spec.policy):
        yield Fault(f"policy.{fault.field}", fault.problem, fault.advice)
    for name in ("grace", "grace_vercel"):
        if getattr(spec.policy, name) > rules.max_grace:
            yield Fault(f"policy.{name}", f"is longer than {PREFIX}MAX_GRACE", "shorten it, or let whoever runs this program allow more")


def _secret_faults(document: ResourceDocument, spec: ResourceSpec) -> Iterator[Fault]:
    for fault in validate(spec):
        place = re.fullmatch(r"secrets\[(\d+)\](.*)", fault.field)
        if place is None:
            yield fault
        elif int(place[1]) < len(document.secrets):
            yield Fault(fault.field.replace(".overrides.", "."), fault.problem, fault.advice)
        else:
            name = spec.secrets[int(place[1])].name
            yield Fault("template_set", f"{name} of it: {fault.problem}", fault.advice)


def _policy_warnings(policy: Policy) -> Iterator[Fault]:
    if policy.every is not None and policy.grace >= policy.every:
        alive = policy.grace // policy.every + 2
        yield Fault("policy.grace", f"is not shorter than policy.every: up to {alive} logins of the resource will work at once")
    if not policy.grace:
        yield Fault(
            "policy.grace", "is zero: what was deployed with the old login stops working at once", "give the customer time to redeploy"
        )


# The login that is in use now


def _current(document: CurrentDocument, directory: Path, environ: Mapping[str, str], reading: Reading) -> Login | None:
    if (document.password_file is None) == (document.password_env is None):
        problem = "is missing" if document.password_file is None else "stands beside password_env"
        reading.extend([Fault("current.password_file", problem, "name the password by one of password_file and password_env")])
        return None
    if document.password_env is not None:
        return _from_variable(document.username, document.password_env, environ, reading)
    try:
        return Login(document.username, Sensitive(read_secret(directory / str(document.password_file))))
    except UnreadableSecretError as error:
        reading.extend([Fault("current.password_file", str(error), "the file holds the password and nothing else")])
        return None


def _from_variable(username: str, variable: str, environ: Mapping[str, str], reading: Reading) -> Login | None:
    faults = list(_variable_faults("current.password_env", variable))
    if not faults and not environ.get(variable):
        faults = [Fault("current.password_env", "names a variable that is not set")]
    reading.extend(faults)
    return None if faults else Login(username, Sensitive(environ[variable]))


def _permissions(name: str, directory: Path, document: CurrentDocument | None) -> Iterator[Fault]:
    if document is not None and document.password_file is not None:
        yield from _file_warnings(name, directory / document.password_file, secret=True)
