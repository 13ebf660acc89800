"""`rollover rotate`, `rollover push` and `rollover undo-block`: what a person asks of one resource, now."""

from typing import TYPE_CHECKING, Annotated

import typer

from rotation.errors import Conflict
from worker.cli import arguments, output, session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rotation.model import Resource
    from rotation.requests import Asked, Received


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(rotate)
    app.command()(push)
    app.command("undo-block")(undo_block)


Wait = Annotated[bool, typer.Option("--wait", help="Show the steps as they happen; exits with 0 only when it is completed.")]


def rotate(
    name: arguments.ResourceName,
    *,
    grace: Annotated[
        str | None, typer.Option(metavar="DURATION", help="How long the present login keeps working, e.g. 24h. Default: the policy's.")
    ] = None,
    reason: arguments.Reason = "",
    emergency: Annotated[
        bool, typer.Option("--emergency", help="The login is known to others: end it as soon as its successor is at Vercel.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the statements, the variables and the checks, and change nothing. 1: something is wrong."),
    ] = False,
    wait: Wait = False,
    as_json: output.Json = False,
) -> None:
    """Ask for a rotation, now.

    When this returns the request is on record, and a worker will answer it whatever crashes.
    """
    from rotation import requests  # noqa: PLC0415 - imported when it runs
    from rotation.states import Trigger  # noqa: PLC0415

    if emergency and grace is not None:
        raise typer.BadParameter("--grace and --emergency contradict each other: an emergency gives no grace")
    if dry_run and wait:
        raise typer.BadParameter("--dry-run and --wait contradict each other: there is nothing to wait for")
    with session.opened() as here:
        asked = requests.Asked(
            Trigger.EMERGENCY if emergency else Trigger.MANUAL,
            session.actor(),
            reason,
            grace=None if grace is None else arguments.duration("--grace", grace, here.settings.max_grace),
        )
        resource = here.resource(name)
        if dry_run:
            _rehearsed(here, resource, asked, as_json=as_json)
            return
        _answered(here, resource, lambda: requests.trigger(resource.id, asked, here.ports), _ROTATED, wait=wait, as_json=as_json)


def _rehearsed(here: session.Session, resource: "Resource", asked: "Asked", *, as_json: bool) -> None:
    from worker.cli import rehearsal  # noqa: PLC0415 - imported when it runs

    plan = rehearsal.rehearse(here, resource, asked.trigger, asked.grace)
    if as_json:
        output.show(plan)
    else:
        rehearsal.tell(plan)
        output.done("nothing was changed")
    if plan.faults:
        raise typer.Exit(output.FAILED)


def push(
    name: arguments.ResourceName,
    *,
    reason: arguments.Reason = "",
    wait: Wait = False,
    as_json: output.Json = False,
) -> None:
    """Push the present secrets to Vercel again.

    With what the resource's file says by now, or because Vercel lost them. The login stays as it is.
    """
    from rotation import requests  # noqa: PLC0415 - imported when it runs

    with session.opened() as here:
        resource = here.resource(name)
        actor = session.actor()
        _answered(here, resource, lambda: requests.push_again(resource.id, actor, reason, here.ports), _PUSHED, wait=wait, as_json=as_json)


_ROTATED = {
    "opened": "a rotation of {name} was asked for: {rotation}",
    "joined": "joined the rotation of {name} that has begun: {rotation}",
    "follows": "{name} is being pushed: a rotation follows it, {rotation}",
    "repeated": "asked for before: {rotation}",
    "nothing": "nothing to do for {name}",
}
_PUSHED = {
    "opened": "the secrets of {name} are to be pushed again: {rotation}",
    "joined": "one is asked for already that pushes all secrets of {name}: {rotation}",
    "follows": "{name} is being rotated: its secrets are pushed again after that, {rotation}",
}


def _answered(
    here: session.Session, resource: "Resource", ask: "Callable[[], Received]", words: "Mapping[str, str]", *, wait: bool, as_json: bool
) -> None:
    """Put a request on record, tell the workers, say what became of it, and look on if that is wanted."""
    from rotation.states import RotationState  # noqa: PLC0415 - imported when it runs
    from worker.cli.hinting import ready  # noqa: PLC0415
    from worker.cli.watching import watch  # noqa: PLC0415

    hint = ready(here.settings)
    received = ask()
    output.done(words[received.reception].format(name=resource.name, rotation=received.rotation_id))
    ended = None
    if received.rotation_id is not None:
        hint(received.rotation_id)
        ended = watch(here, received.rotation_id) if wait else None
    if as_json:
        answer = {"resource": resource.name, "reception": received.reception, "rotation": received.rotation_id}
        output.show({**answer, "request": received.request_id, "state": None if ended is None else ended.state})
    if ended is not None and ended.state is not RotationState.COMPLETED:
        output.fail(f"{ended.id} ended as {ended.state}: {ended.problem or 'see rollover rotation show'}", ended.advice)


def undo_block(
    credential: Annotated[str, typer.Argument(metavar="CREDENTIAL", help="Its id, as `rollover credential list` shows it.")],
    *,
    grace: Annotated[str, typer.Option(metavar="DURATION", help="How long it goes on working, from now.")],
    as_json: output.Json = False,
) -> None:
    """Let an old login go on working.

    For one that is blocked, or whose grace ends too soon; a compromised one is never extended.
    """
    from rotation import requests  # noqa: PLC0415 - imported when it runs

    with session.opened() as here:
        lasting = arguments.duration("--grace", grace, here.settings.max_grace)
        if not lasting:
            raise Conflict("a new end must lie ahead: say --grace 2h")
        known = here.store.views.credential(credential)
        ends_at = requests.extend(known.resource_id, credential, lasting, session.actor(), here.ports)
    if as_json:
        output.show({"credential": credential, "ends_at": ends_at})
    else:
        output.done(f"{known.username} works until {output.moment_and_distance(ends_at)}")
