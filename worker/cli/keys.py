"""`rollover keys`: the keys that seal what is at rest. Only `keys new` shows bits: it is made for that."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotation.errors import Fault, Invalid
from worker.cli import arguments, output, session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.settings import Settings

app = typer.Typer(name="keys", help="The keys that seal passwords and tokens.", no_args_is_help=True)

File = Annotated[Path | None, typer.Argument(metavar="[FILE]", help="The key file. Default: the configured one.")]


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app)


@app.command()
def create(file: File = None) -> None:
    """Make a key file with one key of each use, for its owner alone. Keep a copy elsewhere."""
    from rotation.store.keyring import create_key_file  # noqa: PLC0415 - imported when it runs

    path = file or _future_path()
    session.make_private(path.parent)
    keyring = create_key_file(path)
    output.done(f"made {path} with {len(keyring.keys)} keys: keep a copy elsewhere, without it nothing that they seal can be read")
    if file is not None or os.environ.get("ROLLOVER_STORE_URL") or os.environ.get("ROLLOVER_STORE_URL_FILE"):
        output.done(f"ROLLOVER_KEYS_FILE={path.absolute()} lets every process use it")


@app.command()
def new() -> None:
    """Print a new keyring, for whatever hands it to the processes as ROLLOVER_KEYS. Whoever reads it reads every password it seals."""
    from rotation.store.keyring import new_key_text  # noqa: PLC0415 - imported when it runs

    typer.echo(new_key_text().reveal(), nl=False)


@app.command("list")
def list_all(*, as_json: output.Json = False) -> None:
    """List the keys by id: what each is for, which seals now, and how much each still seals. Only what seals nothing may go."""
    from worker.wiring import open_keyring  # noqa: PLC0415 - imported when it runs

    configured = session.settings()
    keyring = open_keyring(configured)
    sealed = _sealed(configured)
    ring = [Line(one.id, one.use.value, one is keyring.newest(one.use), here=True, sealed=_sum(sealed, one.id)) for one in keyring.keys]
    known = {one.id for one in ring}
    gone = [
        Line(one, one.partition("-")[0], newest=False, here=False, sealed=_sum(sealed, one)) for one in sealed or () if one not in known
    ]
    if as_json:
        output.show([*ring, *gone])
        return
    output.table(
        ("key", "use", "newest", "in the ring", ">seals"),
        [(one.id, one.use, one.newest, one.here, one.sealed) for one in (*ring, *gone)],
        nothing="there is no key: `rollover keys create` makes a key file",
    )
    for one in gone:
        output.warn(f"{one.id} is not in the ring, and what it sealed is held: add it again, or `rollover keys abandon {one.id}`")


@dataclass(frozen=True, slots=True)
class Line:
    """One key in the list. `sealed` counts passwords, verifiers and tokens; None where the store does not answer, or for other uses."""

    id: str
    use: str
    newest: bool
    here: bool
    sealed: int | None


def _sealed(configured: "Settings") -> "Mapping[str, Mapping[str, int]] | None":
    """How much each key seals, and zero for keys that only have a canary; None where there is no store to ask."""
    from rotation.errors import Unavailable  # noqa: PLC0415 - imported when it runs
    from rotation.store.canaries import Canaries  # noqa: PLC0415
    from rotation.store.sealed import SealedRows  # noqa: PLC0415

    if configured.store.get_backend_name() == "sqlite" and not Path(str(configured.store.database)).exists():
        return None  # looking would make it
    with session.opened() as here:
        try:
            counted = SealedRows(here.store.database).counts()
            return {key_id: counted.get(key_id, {}) for key_id in (*Canaries(here.store.database).known(), *counted)}
        except Unavailable as error:
            output.warn(f"how much each key seals is not known: {error}")
            return None


def _sum(sealed: "Mapping[str, Mapping[str, int]] | None", key_id: str) -> int | None:
    if sealed is None or key_id.partition("-")[0] not in ("secrets", "verifiers", "unknown"):
        return None
    return sum(sealed.get(key_id, {}).values())


@app.command()
def add(file: File = None) -> None:
    """Add new keys to the key file: they seal from then on, the older ones still open. Give the file to every worker before a restart."""
    from rotation.store.keyring import add_key  # noqa: PLC0415 - imported when it runs

    path = file or _path(session.settings())
    if not path.exists():
        raise Invalid([Fault(str(path), "is not there", "`rollover keys create` makes a key file")])
    for key in add_key(path):
        output.line(key.id)
    output.done("restart every process that uses this file, after each has it; then `rollover keys rewrap`")


@app.command()
def rewrap(*, as_json: output.Json = False) -> None:
    """Seal everything under the newest keys. It can be ended and repeated at any time; workers go on meanwhile.

    First restart every process with the new keys. Repeat it until nothing is left: a worker may write back what it had read before.
    """
    from rotation.model import Event  # noqa: PLC0415 - imported when it runs
    from rotation.store.canaries import Canaries  # noqa: PLC0415
    from rotation.store.sealed import SealedRows  # noqa: PLC0415
    from rotation.store.sealing import KeyringSealer  # noqa: PLC0415
    from worker.wiring import open_keyring  # noqa: PLC0415

    with session.opened(seals=True) as here:
        sealer = KeyringSealer(open_keyring(here.settings))
        rows, canaries = SealedRows(here.store.database), Canaries(here.store.database)
        older = sum(sum(counted.values()) for key_id, counted in rows.counts().items() if key_id not in sealer.newest)
        done: Counter[str] = Counter()
        held, damaged = 0, []
        with output.progress("sealing under the newest keys", older) as advance:
            for batch in rows.rewrap(sealer):
                done[batch.what] += batch.rewrapped
                held += batch.held
                damaged += [f"{batch.what} of {row_id}" for row_id in batch.damaged]
                advance(batch.rewrapped + batch.held + len(batch.damaged))
        if done.total():
            event = Event("keys_rewrapped", session.actor(), detail=tuple(sorted((what, count) for what, count in done.items() if count)))
            here.store.record_event(event)
        counted = rows.counts()
        unused = [one for one in canaries.known() if one not in counted and one not in sealer.newest]
        for key_id in unused:
            canaries.forget(key_id)
    left = sum(sum(one.values()) for key_id, one in counted.items() if key_id not in sealer.newest)
    if as_json:
        answer = {"rewrapped": done.total(), "left": left, "held": held, "damaged": damaged, "unused": unused}
        output.show(answer)
    else:
        output.done(f"{done.total()} values were sealed anew" if done.total() else "nothing was sealed by older keys that are here")
        for key_id in unused:
            output.done(f"{key_id} seals nothing any more: take its line out of the key file")
    if held:
        output.warn(f"{held} values were sealed by keys that are not here: `rollover keys list` names them")
    for what in damaged:
        output.warn(f"{what}: damaged, it can be opened by nobody")
    if left > held + len(damaged):
        output.warn(f"{left - held - len(damaged)} more were just being written: repeat it")
    if left:
        raise typer.Exit(output.FAILED)


@app.command()
def abandon(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as `rollover keys list` shows it.")],
    *,
    reason: arguments.Reason = "",
    yes: arguments.Yes = False,
    as_json: output.Json = False,
) -> None:
    """Give up what a lost key sealed, for good.

    Logins whose passwords it sealed are replaced by rotations; no application loses its login before its time. Those that Vercel held
    can be blocked later, but never be proved dead. Installations whose token it sealed are parked until they get a new one.
    """
    from rotation import losses  # noqa: PLC0415 - imported when it runs
    from rotation.model import Event  # noqa: PLC0415
    from rotation.store.canaries import Canaries  # noqa: PLC0415
    from rotation.store.sealed import SealedRows  # noqa: PLC0415
    from worker.cli.hinting import ready  # noqa: PLC0415

    with session.opened() as here:
        rows, canaries = SealedRows(here.store.database), Canaries(here.store.database)
        _expect_gone(here, key, {*canaries.known(), *rows.counts()})
        why = reason or f"the key {key} is gone"
        if not yes:
            typer.confirm(f"Destroy what {key} sealed, for good? If there is any copy of it, add it instead.", abort=True, err=True)
        found = [losses.abandon_key(one, key, session.actor(), why, here.ports) for one in rows.resources_of(key)]
        lost = [one for one in found if one is not None]
        tokens = [one for one in rows.installations_of(key) if _without_token(here, one, key, why)]
        canaries.forget(key)
        here.store.record_event(Event("key_given_up", session.actor(), why, (("key", key), ("logins", sum(one.logins for one in lost)))))
        started = [one.rotation_id for one in lost if one.rotation_id is not None]
        if len(started) == 1:  # of more the sweep takes care, no faster than the workers can
            ready(here.settings)(started[0])
    unprovable = sum(one.unprovable for one in lost)
    if as_json:
        counts = {"resources": len(lost), "logins": sum(one.logins for one in lost), "unprovable": unprovable}
        output.show({"key": key, **counts, "rotations": started, "parked": tokens})
        return
    output.done(f"{key} is given up: {sum(one.logins for one in lost)} logins of {len(lost)} resources, {len(started)} rotations asked for")
    if unprovable:
        output.warn(f"{unprovable} logins will be blocked after their grace and stay so: without their password nobody can prove them dead")
    for name in tokens:
        output.warn(f"{name} is parked: `rollover installation token {name}`")


def _expect_gone(here: session.Session, key: str, known: set[str]) -> None:
    """Raises `Conflict` for a key that is here, `NotFound` for one that never sealed anything here."""
    from rotation.errors import Conflict, NotFound  # noqa: PLC0415 - imported when it runs
    from worker.wiring import open_keyring  # noqa: PLC0415

    if key in {one.id for one in open_keyring(here.settings).keys}:
        raise Conflict(f"{key} is in the keyring, so nothing that it sealed is lost: `rollover keys rewrap` seals it anew")
    if key not in known or key == "unknown":
        raise NotFound("key", key)


def _without_token(here: session.Session, name: str, key: str, why: str) -> bool:
    from rotation.model import Event  # noqa: PLC0415 - imported when it runs

    detail = (("installation", name), ("key", key))
    return here.store.forget_token(here.store.installation(name), why, Event("installation_token_lost", session.actor(), why, detail))


def _path(settings: "Settings") -> Path:
    if settings.keys_path is None:
        raise _no_file()
    return settings.keys_path


def _future_path() -> Path:
    """Where the configured key file will be. Without keys the settings as a whole may be wrong, so the others are not looked at."""
    from worker.settings import load  # noqa: PLC0415 - imported when it runs

    if os.environ.get("ROLLOVER_KEYS"):
        raise _no_file()
    named = os.environ.get("ROLLOVER_KEYS_FILE")
    if named:
        return Path(named).absolute()
    return _path(load({name: os.environ[name] for name in ("ROLLOVER_DATA_DIR", "XDG_STATE_HOME", "HOME") if name in os.environ}))


def _no_file() -> Invalid:
    return Invalid([Fault("ROLLOVER_KEYS", "holds the keys themselves, so there is no file", "name the file")])
