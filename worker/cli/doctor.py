"""`rollover doctor`: everything that rotations need, looked at before they need it. It changes nothing."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from rotation.errors import Refused, RolloverError
from rotation.states import ResourceState
from worker.cli import output, session

if TYPE_CHECKING:
    from rotation.model import Installation, Resource, Server

Thing = TypeVar("Thing")

SIDE_BY_SIDE = 8
BROKER_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what it is, how it is, and what to do about it; no advice where nothing is wrong."""

    what: str
    ok: bool
    found: str
    advice: str = ""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    *,
    resources: Annotated[int, typer.Option(min=0, help="At most so many resources are looked at.")] = 1_000,
    as_json: output.Json = False,
) -> None:
    """Look at all that rotations need. Exits with 1 when something is wrong.

    The store, keys, broker, Vercel and clocks; every installation and server; what each resource's database would refuse.
    """
    try:
        with session.opened() as here:
            findings = list(_findings(here, resources))
    except Refused as error:  # without keys there is nothing to look with
        findings = [Finding("keys", ok=False, found=str(error), advice=error.advice)]
    well = all(one.ok for one in findings)
    if as_json:
        output.show({"ok": well, "findings": findings})
    else:
        output.table(
            ("what", "", "found", "what to do"),
            [(one.what, "ok" if one.ok else "FAULT", one.found, one.advice or " ") for one in findings],
            nothing="",
        )
    if not well:
        raise typer.Exit(output.FAILED)


def _findings(here: session.Session, limit: int) -> Iterator[Finding]:
    """In the order in which one thing needs the other: without a store nothing else can be listed."""
    store = _tried("store", lambda: _store(here))
    yield store
    yield _tried("broker", lambda: _broker(here))
    yield _tried("Vercel", lambda: _vercel(here))
    if not store.ok:
        return
    yield from _keys(here)
    yield _tried("clocks", lambda: _clocks(here))
    yield from _side_by_side(here.store.installations(), lambda one: _installation(here, one))
    yield from _side_by_side(here.store.servers(), lambda one: _server(here, one))
    lines = here.store.views.resources(state=ResourceState.ACTIVE, limit=limit) if limit else ()
    yield from _side_by_side([here.store.resource(one.id) for one in lines], lambda one: _resource(here, one))


def _tried(what: str, look: Callable[[], Finding]) -> Finding:
    """What was found; an error of the other side is a finding as well."""
    try:
        return look()
    except RolloverError as error:
        return Finding(what, ok=False, found=str(error), advice=error.advice if isinstance(error, Refused) else "")


def _side_by_side(things: Sequence[Thing], look: Callable[[Thing], Finding]) -> Iterator[Finding]:
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        yield from pool.map(look, things)


def _store(here: session.Session) -> Finding:
    from rotation.store.migration import is_current  # noqa: PLC0415 - Alembic is for few commands
    from worker.settings import masked_store  # noqa: PLC0415

    where = masked_store(here.settings.store)
    if not is_current(here.settings.store):
        return Finding("store", ok=False, found=f"{where} has no tables, or older ones", advice="`rollover migrate`")
    return Finding("store", ok=True, found=where)


def _keys(here: session.Session) -> Iterator[Finding]:
    """Each key that ever sealed here, by its canary; the store itself was looked at before."""
    from rotation.store.canaries import Canaries  # noqa: PLC0415 - imported when it runs
    from rotation.store.sealed import SealedRows  # noqa: PLC0415
    from rotation.store.sealing import KeyringSealer  # noqa: PLC0415
    from worker.wiring import open_keyring  # noqa: PLC0415

    canaries = Canaries(here.store.database)
    report = canaries.check(KeyringSealer(open_keyring(here.settings)))
    counts = SealedRows(here.store.database).counts() if report.missing else {}
    for key_id in canaries.known():
        what = f"key {key_id}"
        if key_id in report.missing:
            held = sum(counts.get(key_id, {}).values())
            found = f"is not in the keyring; {held} values are held"
            yield Finding(what, ok=False, found=found, advice=f"add it again, or `rollover keys abandon {key_id}`")
        elif key_id in report.damaged:
            advice = "the store or the key was altered: compare both with their backups"
            yield Finding(what, ok=False, found="its canary does not open", advice=advice)
        else:
            yield Finding(what, ok=True, found="its canary opens")


def _clocks(here: session.Session) -> Finding:
    """The store's clock decides what is due; a worker whose own is far from it retires nothing."""
    before = here.ports.clock.now()
    store_now = here.store.now()
    apart = max(before - store_now, store_now - here.ports.clock.now())
    if apart > here.ports.terms.clock_tolerance:
        found = f"this machine and the store are {output.largest_unit(apart)} apart"
        return Finding("clocks", ok=False, found=found, advice="set both by NTP: nothing is retired while they disagree")
    return Finding("clocks", ok=True, found="this machine and the store agree")


def _broker(here: session.Session) -> Finding:
    from kombu import Connection  # noqa: PLC0415 - not for help
    from kombu.exceptions import OperationalError  # noqa: PLC0415

    from worker import transport  # noqa: PLC0415
    from worker.addresses import masked_address  # noqa: PLC0415

    url = here.settings.broker_url
    if url is None:
        return Finding("broker", ok=True, found="`rollover up` starts one of its own")
    where = masked_address(url.reveal())
    waits = {"socket_connect_timeout": BROKER_SECONDS, "socket_timeout": BROKER_SECONDS} if url.reveal().startswith("redis") else {}
    proof = transport.tls(url.reveal())
    with Connection(url.reveal(), ssl=proof, connect_timeout=BROKER_SECONDS, transport_options=waits) as connection:
        away: tuple[type[BaseException], ...] = (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors)
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=BROKER_SECONDS)
        except away as error:
            return Finding(
                "broker", ok=False, found=f"{where} does not answer: {type(error).__name__}", advice="see to it, or ROLLOVER_BROKER_URL"
            )
    return Finding("broker", ok=True, found=where)


def _vercel(here: session.Session) -> Finding:
    from rotation.vercel.exchange import HttpClient  # noqa: PLC0415 - not for help

    url = here.settings.vercel_api_url
    http = HttpClient(here.ports.clock)
    try:
        answer = http.send("GET", url, here.deadline(), headers={})
    finally:
        http.close()
    if answer.status is None:
        return Finding("Vercel", ok=False, found=f"{url} does not answer: {answer.problem}", advice="let this machine reach it by HTTPS")
    return Finding("Vercel", ok=True, found=url)


def _installation(here: session.Session, installation: "Installation") -> Finding:
    """A token that opens shows that the key of its time is still in the ring."""
    what = f"installation {installation.id}"
    new = f"`rollover installation token {installation.id}`"
    if installation.parked:
        return Finding(what, ok=False, found=f"parked: {installation.parked_reason}", advice=f"{new}, or unpark it")
    if installation.sealed_token is None:
        fetched = here.settings.vercel_token_url is not None
        return Finding(what, ok=fetched, found="its tokens are fetched" if fetched else "has no token", advice="" if fetched else new)
    return _tried(what, lambda: _opened(here, installation, what))


def _opened(here: session.Session, installation: "Installation", what: str) -> Finding:
    from rotation.model import SealContext  # noqa: PLC0415 - beside its only use

    if installation.sealed_token is not None:
        here.ports.sealer.open(installation.sealed_token, SealContext(installation.id, "", "", "token"))
    return Finding(what, ok=True, found="its token opens")


def _server(here: session.Session, server: "Server") -> Finding:
    def look() -> Finding:
        engine = here.engine(server.engine)
        engine.usage(server, here.deadline())
        count = len(engine.list_logins(server, here.deadline()))
        before = here.store.now()
        shown = engine.clock(server, here.deadline())
        apart = max(before - shown, shown - here.store.now())
        if apart > here.ports.terms.clock_tolerance:
            found = f"its clock and the store's are {output.largest_unit(apart)} apart"
            return Finding(what, ok=False, found=found, advice="set it by NTP: what its log and our events say of one moment differs")
        return Finding(what, ok=True, found=f"the admin logs in; {count} logins of ours")

    what = f"server {server.name}"
    return _tried(what, look)


def _resource(here: session.Session, resource: "Resource") -> Finding:
    def look() -> Finding:
        faults = here.engine(resource.spec.engine).preflight(resource, here.deadline())
        if not faults:
            return Finding(what, ok=True, found="can be rotated")
        found = "; ".join(f"{one.field} {one.problem}" for one in faults)
        return Finding(what, ok=False, found=found, advice=" ".join(one.advice for one in faults if one.advice))

    what = f"resource {resource.name}"
    return _tried(what, look)
