"""`rollover resource`: the databases whose logins are rotated. Registering never rotates, and changes nothing in a database."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotation.errors import Conflict, Fault, Invalid, RolloverError
from worker.cli import arguments, output, session

if TYPE_CHECKING:
    from rotation.model import Resource
    from rotation.states import ResourceState
    from rotation.store.views import ResourceLine
    from worker.inventory import ResourceFile

app = typer.Typer(name="resource", help="Databases whose logins are rotated.", no_args_is_help=True)

ADOPTING_CALLS = 3
"""Adopting goes through every database of the server, so it may take as long as several calls."""

MaybeResource = Annotated[str | None, typer.Argument(metavar="[RESOURCE]", help="installation/id, or the id alone where it is unique.")]
All = Annotated[bool, typer.Option("--all", help="The whole fleet.")]


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app)


@app.command()
def add(files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="TOML files, one a resource.")]) -> None:
    """Add resources as their files describe them. With a fault in any file nothing is added."""
    from rotation import requests  # noqa: PLC0415 - imported when it runs

    with session.opened(seals=True) as here:
        read = _read_all(files, here)
        _stop_at_obstacles(read, here)
        for file, one in read:
            try:
                resource = requests.register(one.spec, one.current, session.actor(), here.ports)
            except RolloverError:
                output.warn(f"{file}: not added, nor any file after it")
                raise
            output.done(f"added {resource.name}: {_next(resource)}")


@app.command()
def update(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The resource's TOML file. `[current]` in it does not count any more.")],
) -> None:
    """Replace what is said about a resource. A rotation that is under way keeps what it began with."""
    from rotation import requests  # noqa: PLC0415 - imported when it runs

    with session.opened() as here:
        ((_, read),) = _read_all([file], here)
        known = here.resource(f"{read.spec.installation_id}/{read.spec.external_id}")
        resource = requests.revise(known, read.spec, session.actor(), here.ports)
    output.done(f"{resource.name} is at revision {resource.revision}: {_next(resource)}")


@app.command()
def adopt(
    name: arguments.ResourceName,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the statements and change nothing.")] = False,
    as_json: output.Json = False,
) -> None:
    """Prepare the login that is in use now, so that later ones can share what it owns. It keeps working; repeating is harmless."""
    from rotation.cases import Move  # noqa: PLC0415 - imported when it runs
    from rotation.model import Event  # noqa: PLC0415 - imported when it runs
    from rotation.states import Stage  # noqa: PLC0415 - imported when it runs

    with session.opened() as here:
        resource = here.resource(name)
        current = next((one.credential for one in here.store.views.credentials(resource.id) if one.credential.stage is Stage.CURRENT), None)
        if current is None:
            raise Conflict(f"{resource.name} has no login yet: `rollover rotate {resource.name}` makes the first one")
        if not current.adopted:
            raise Conflict(f"{current.username} was made by this program: there is nothing to adopt")
        engine = here.engine(resource.spec.engine)
        statements = engine.adopt(resource, current.username, here.deadline(ADOPTING_CALLS), dry_run=dry_run)
        if not dry_run:
            event = Event("resource_adopted", session.actor(), detail=(("statements", len(statements)),))
            here.store.amend(resource.id, lambda _: (Move(event), None))
    if as_json:
        output.show({"resource": resource.name, "login": current.username, "dry_run": dry_run, "statements": statements})
        return
    for statement in statements:
        output.line(statement)
    output.done("nothing was changed" if dry_run else f"{resource.name} is ready to be rotated")


@app.command("list")
def list_all(
    *,
    state: Annotated[str, typer.Option(help="Only those that are active, paused, leaving or gone.")] = "",
    as_json: output.Json = False,
) -> None:
    """List the resources."""
    from rotation.states import ResourceState  # noqa: PLC0415 - imported when it runs

    if state and state not in set(ResourceState):
        raise typer.BadParameter(f"unknown state; there are {', '.join(ResourceState)}")
    with session.opened() as here:
        found = [one for page in _pages(here, ResourceState(state) if state else None) for one in page]
        now = here.store.now()
    if as_json:
        output.show(found)
        return
    output.table(
        ("resource", "state", "server", ">login", "now", "next rotation"),
        [
            (one.name, one.state, one.server, one.generation, one.rotation_state, output.moment_and_distance(one.next_rotation_at, now))
            for one in found
        ],
        nothing="there is no such resource" if state else "there is no resource: `rollover resource add FILE` adds one",
    )


@app.command()
def show(name: arguments.ResourceName, *, as_json: output.Json = False) -> None:
    """Show everything about one resource."""
    with session.opened() as here:
        resource = here.resource(name)
        now = here.store.now()
    if as_json:
        output.show(resource)
        return
    spec, policy, schedule = resource.spec, resource.spec.policy, resource.schedule
    output.details(
        (
            ("resource", resource.name),
            ("id", resource.id),
            ("state", resource.state),
            ("held, as", resource.held_because),
            ("revision", resource.revision),
            ("product", spec.product),
            ("database", f"{spec.database.name} on {spec.database.server} ({spec.engine})"),
            ("owner", spec.database.owner_role),
            ("endpoints", [f"{one.name} {one.host}:{one.port}" for one in spec.database.endpoints]),
            ("secrets", [one.name for one in spec.secrets]),
            ("replaces", "all of the resource's secrets" if spec.owns_all_secrets else "these secrets alone"),
            ("rotates", policy.cron or (policy.every and f"every {output.text(policy.every)}") or "on demand"),
            ("grace", policy.grace),
            ("in use", policy.in_use),
            ("next rotation", schedule.next_rotation_at and output.moment_and_distance(schedule.next_rotation_at, now)),
            ("why then", schedule.reason),
            ("last rotation", schedule.completed_at and output.moment_and_distance(schedule.completed_at, now)),
            ("failures", schedule.failures or None),
        )
    )


@app.command()
def check(name: arguments.ResourceName, *, as_json: output.Json = False) -> None:
    """Look for everything that would stop a rotation; each fault comes with the SQL that mends it. Changes nothing."""
    with session.opened() as here:
        resource = here.resource(name)
        faults = here.engine(resource.spec.engine).preflight(resource, here.deadline())
    if as_json:
        output.show({"resource": resource.name, "ok": not faults, "faults": faults})
    elif not faults:
        output.done(f"{resource.name} is ready to be rotated")
    else:
        output.table(("where", "what is wrong", "what to do"), [(one.field, one.problem, one.advice) for one in faults], nothing="")
    if faults:
        raise typer.Exit(output.FAILED)


@app.command()
def pause(name: MaybeResource = None, *, everything: All = False, reason: arguments.Reason = "") -> None:
    """Hold a resource back, or the fleet: nothing is rotated or retired until it is resumed. What was offered goes on."""
    from rotation import requests  # noqa: PLC0415 - imported when it runs
    from rotation.states import ResourceState  # noqa: PLC0415

    with session.opened() as here:
        _each(
            here,
            name,
            ResourceState.ACTIVE if everything else None,
            lambda one: requests.pause(one, session.actor(), reason, here.ports),
            "paused",
        )


@app.command()
def resume(name: MaybeResource = None, *, everything: All = False, reason: arguments.Reason = "") -> None:
    """Let a paused resource, or the fleet, go on: what became due meanwhile is due now, once."""
    from rotation import requests  # noqa: PLC0415 - imported when it runs
    from rotation.states import ResourceState  # noqa: PLC0415

    with session.opened() as here:
        _each(
            here,
            name,
            ResourceState.PAUSED if everything else None,
            lambda one: requests.resume(one, session.actor(), reason, here.ports),
            "resumed",
        )


@app.command()
def remove(
    name: arguments.ResourceName,
    *,
    keep_logins: Annotated[bool, typer.Option("--keep-logins", help="Leave its logins as they are, and forget their passwords.")] = False,
    drop_logins: Annotated[bool, typer.Option("--drop-logins", help="Remove all its logins from the database.")] = False,
    after: Annotated[
        str | None, typer.Option(metavar="DURATION", help="With --drop-logins: how long they keep working. Default: 0s.")
    ] = None,
    reason: arguments.Reason = "",
    yes: arguments.Yes = False,
) -> None:
    """Rotate a resource no more. Its logins are removed, or kept as they are; its history is kept."""
    from rotation import requests  # noqa: PLC0415 - imported when it runs

    if keep_logins == drop_logins:
        raise typer.BadParameter("say what happens to its logins: either --keep-logins or --drop-logins")
    if keep_logins and after is not None:
        raise typer.BadParameter("--keep-logins and --after contradict each other: what is kept has no end")
    ends_in = None if keep_logins else arguments.duration("--after", after or "0s")
    with session.opened() as here:
        resource = here.resource(name)
        fate = "forget the passwords of all its logins" if ends_in is None else f"end every login to its database after {after or '0s'}"
        if not yes:
            typer.confirm(f"Remove {resource.name}, and {fate}?", abort=True, err=True)
        requests.leave(resource.id, session.actor(), reason or "removed by a person", here.ports, ends_in=ends_in)
        left = here.resource(resource.id)
    if ends_in is not None:
        output.done(f"{left.name} leaves; its logins end after {after or '0s'}")
    elif left.state == "gone":
        output.done(f"{left.name} is gone; its logins work on, and nothing is held of them any more")
    else:
        output.done(f"{left.name} leaves; its logins work on, except those that were being removed already")


def _each(here: session.Session, name: str | None, fleet: "ResourceState | None", act: Callable[[str], None], done: str) -> None:
    """Act on one resource, or on all that are in the state."""
    if (name is None) == (fleet is None):
        raise typer.BadParameter("name a resource, or say --all")
    if name is not None:
        resource = here.resource(name)
        act(resource.id)
        output.done(f"{done} {resource.name}")
        return
    count = 0
    for page in _pages(here, fleet):
        for one in page:
            try:
                act(one.id)
            except Conflict as error:  # it has left meanwhile
                output.warn(str(error))
            else:
                count += 1
    output.done(f"{done} {count} resources")


def _pages(here: session.Session, state: "ResourceState | None") -> "Iterator[tuple[ResourceLine, ...]]":
    page = here.store.views.resources(state=state)
    while page:
        yield page
        page = here.store.views.resources(after=page[-1].id, state=state)


def _read_all(files: list[Path], here: session.Session) -> "list[tuple[Path, ResourceFile]]":
    """Read all files. Raises `Invalid` with the faults of all of them."""
    from worker.inventory import read_resource  # noqa: PLC0415 - imported when it runs

    read: list[tuple[Path, ResourceFile]] = []
    faults: list[Fault] = []
    for file in files:
        try:
            read.append((file, read_resource(file, here.rules(), os.environ)))
        except Invalid as error:
            faults += [Fault(f"{file}: {fault.field}", fault.problem, fault.advice) for fault in error.faults]
    if faults:
        raise Invalid(faults)
    for file, one in read:
        for warning in one.warnings:
            output.warn(f"{file}: {warning}")
    return read


def _stop_at_obstacles(read: "list[tuple[Path, ResourceFile]]", here: session.Session) -> None:
    """End with everything that the store, or another of the files, has against them."""
    obstacles: list[str] = []
    resources: dict[object, Path] = {}
    logins: dict[object, Path] = {}
    prefixes: dict[object, Path] = {}
    for file, one in read:
        spec, username = one.spec, None if one.current is None else one.current.username
        before = len(read) > 1 and f"{file}: "
        obstacles += [f"{before or ''}{obstacle}" for obstacle in here.store.obstacles(spec, username)]
        twin = resources.setdefault((spec.installation_id, spec.external_id), file)
        if twin is not file:
            obstacles.append(f"{file}: the resource {spec.installation_id}/{spec.external_id} stands in {twin} as well")
        elif username is not None and (twin := logins.setdefault((spec.database.server, username), file)) is not file:
            obstacles.append(f"{file}: the login {username} on {spec.database.server} is that of {twin}")
        elif (twin := prefixes.setdefault((spec.database.server, spec.database.login_prefix), file)) is not file:
            obstacles.append(f"{file}: database.login_prefix on {spec.database.server} is that of {twin}")
    if obstacles:
        raise Conflict("\n  ".join(obstacles if len(obstacles) == 1 else ["nothing was added", *obstacles]))


def _next(resource: "Resource") -> str:
    at = resource.schedule.next_rotation_at
    if at is not None:
        return f"next rotation {output.moment_and_distance(at)}"
    return resource.schedule.reason or f"`rollover rotate {resource.name}` rotates it"
