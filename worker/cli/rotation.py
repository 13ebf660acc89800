"""`rollover rotation`: what was rotated, what is being rotated, and how far it has come."""

from typing import Annotated

import typer

from worker.cli import arguments, output, session

app = typer.Typer(name="rotation", help="Rotations and their history.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app)


@app.command("list")
def list_all(
    name: Annotated[str | None, typer.Argument(metavar="[RESOURCE]", help="Only of this resource.")] = None,
    *,
    under_way: Annotated[bool, typer.Option("--under-way", help="Only those that have not ended.")] = False,
    limit: arguments.Limit = 20,
    as_json: output.Json = False,
) -> None:
    """List rotations, the newest first."""
    with session.opened() as here:
        resource_id = None if name is None else here.resource(name).id
        found = here.store.views.rotations(resource_id, limit=limit, under_way=under_way)
        now = here.store.now()
    if as_json:
        output.show(found)
        return
    output.table(
        ("rotation", "resource", "state", "trigger", "requested", "problem"),
        [
            (
                one.rotation.id,
                one.resource_name,
                one.rotation.state,
                tuple(dict.fromkeys(one.triggers)),
                output.distance(one.rotation.requested_at, now),
                one.rotation.problem,
            )
            for one in found
        ],
        nothing="there is no such rotation" if name or under_way else "nothing was rotated yet: `rollover rotate RESOURCE` asks for it",
    )


@app.command()
def show(
    rotation: Annotated[str, typer.Argument(metavar="ROTATION", help="Its id.")],
    *,
    as_json: output.Json = False,
) -> None:
    """Show one rotation: who asked, every step, every push."""
    with session.opened() as here:
        story = here.store.views.rotation(rotation)
        now = here.store.now()
    if as_json:
        output.show(story)
        return
    one = story.rotation
    output.details(
        (
            ("rotation", one.id),
            ("resource", story.resource_name),
            ("state", one.state),
            ("urgent", one.urgent or None),
            ("credential", one.credential_id),
            ("goes on", one.due_at and output.moment_and_distance(one.due_at, now)),
            ("tries", one.tries or None),
            ("problem", one.problem),
            ("what to do", one.advice),
        )
    )
    output.heading("asked by")
    output.table(
        ("when", "trigger", "who", "grace", "why"),
        [(ask.received_at, ask.trigger, ask.actor, ask.grace, ask.reason) for ask in story.requests],
        nothing="nobody",
    )
    output.heading("steps")
    output.table(
        ("when", "what", "who", "why"),
        [(line.at, line.event.kind, line.event.actor, line.event.why) for line in story.events],
        nothing="none",
    )
    if story.attempts:
        output.heading("pushes")
        output.table(
            (">push", "sent", "came to", "status", "clean", "note"),
            [(push.number, push.opened_at, push.state, push.status, push.clean, push.note) for push in story.attempts],
            nothing="none",
        )
