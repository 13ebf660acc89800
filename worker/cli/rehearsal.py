"""`rollover rotate --dry-run`: what a rotation would do and send, with nothing on record afterwards and nothing changed anywhere."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from rotation.errors import Fault, Invalid, Refused
from worker.cli import output

if TYPE_CHECKING:
    from rotation.model import Credential, Request, Resource
    from rotation.states import Trigger
    from worker.cli.session import Session


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What would happen. The login's name is an example: the next one has other random digits."""

    resource: str
    login: str
    replaces: str | None
    statements: tuple[str, ...]
    variables: tuple[str, ...]
    keeps_other_variables: bool
    grace: timedelta | None
    grace_reason: str
    in_use: str | None
    in_use_reason: str
    blocked: timedelta | None
    next_rotation_at: datetime | None
    next_reason: str
    faults: tuple[Fault, ...]


def rehearse(here: "Session", resource: "Resource", trigger: "Trigger", grace: timedelta | None) -> Rehearsal:
    """Look at everything that a rotation would look at. Raises `Unavailable` when the database does not answer."""
    from rotation.model import Request  # noqa: PLC0415 - imported when it runs
    from rotation.states import Stage  # noqa: PLC0415 - imported when it runs

    known = [one.credential for one in here.store.views.credentials(resource.id)]
    current = next((one for one in known if one.stage is Stage.CURRENT), None)
    engine = here.engine(resource.spec.engine)
    minted = engine.mint(resource, max((one.generation for one in known), default=0) + 1, here.ports.entropy)
    faults = [*_held(here, resource), *engine.preflight(resource, here.deadline())]
    variables, unrenderable = _variables(here, resource, minted.username)
    faults += unrenderable
    try:
        statements = engine.rehearse(resource, minted.username, None if current is None else current.username, here.deadline())
    except Refused as error:
        statements = ()
        faults.append(Fault("login", str(error), error.advice))
    plan = Rehearsal(
        resource=resource.name,
        login=minted.username,
        replaces=None,
        statements=statements,
        variables=variables,
        keeps_other_variables=not resource.spec.owns_all_secrets,
        grace=None,
        grace_reason="",
        in_use=None,
        in_use_reason="",
        blocked=None,
        next_rotation_at=None,
        next_reason="only on demand",
        faults=tuple(faults),
    )
    now = here.store.now()
    return _decided(plan, resource, current, Request("", resource.id, trigger, "", now, grace=grace), now)


def tell(plan: Rehearsal) -> None:
    """The same for a person: what a rotation does, in its order."""
    output.details(
        (
            ("resource", plan.resource),
            ("new login", f"{plan.login} (for example)"),
            ("variables", plan.variables),
            ("others", "are left alone" if plan.keeps_other_variables else "of this resource are removed"),
            ("replaces", plan.replaces or "nothing: it is the first login"),
            ("grace", plan.grace if plan.grace is None else f"{output.text(plan.grace)}: {plan.grace_reason}"),
            ("if still used", plan.in_use and f"{plan.in_use}: {plan.in_use_reason}"),
            ("blocked", plan.blocked),
            ("next rotation", plan.next_rotation_at and f"{output.moment(plan.next_rotation_at)}: {plan.next_reason}"),
            ("no next one", plan.next_reason if plan.next_rotation_at is None else None),
        )
    )
    output.heading("statements")
    for statement in plan.statements:
        output.line(f"{statement};")
    if plan.faults:
        output.heading("what stands in the way")
        output.table(("where", "what is wrong", "what to do"), [(one.field, one.problem, one.advice) for one in plan.faults], nothing="")


def _held(here: "Session", resource: "Resource") -> list[Fault]:
    from rotation.states import ResourceState  # noqa: PLC0415 - imported when it runs

    faults = []
    if resource.state is not ResourceState.ACTIVE:
        advice = f"`rollover resource resume {resource.name}`" if resource.state is ResourceState.PAUSED else ""
        faults.append(Fault("resource", f"is {resource.state}", advice))
    installation = here.store.installation(resource.spec.installation_id)
    if installation.parked:
        faults.append(Fault("installation", f"is parked: {installation.parked_reason}", f"`rollover installation token {installation.id}`"))
    return faults


def _variables(here: "Session", resource: "Resource", username: str) -> tuple[tuple[str, ...], tuple[Fault, ...]]:
    """The names under which Vercel would hold the values, each rendered once to see that it can be."""
    from rotation.model import Login  # noqa: PLC0415 - imported when it runs
    from rotation.sensitive import Sensitive  # noqa: PLC0415 - imported when it runs
    from rotation.vercel.secrets import full_name  # noqa: PLC0415

    try:
        here.ports.sink.render(resource, Login(username, Sensitive("a password for nobody")))
    except Invalid as error:
        return tuple(full_name(one) for one in resource.spec.secrets), error.faults
    return tuple(full_name(one) for one in resource.spec.secrets), ()


def _decided(plan: Rehearsal, resource: "Resource", current: "Credential | None", request: "Request", now: datetime) -> Rehearsal:
    """With what the policy would decide if the rotation completed now."""
    from rotation import policy  # noqa: PLC0415 - imported when it runs

    rules, asked = resource.spec.policy, [request]
    dated = policy.next_rotation(rules, resource.id, since=now, now=now)
    if dated is not None:
        plan = replace(plan, next_rotation_at=dated.at, next_reason=dated.reason)
    if current is None:
        return plan
    ends = policy.grace_end(current, now, policy.grace(rules, asked))
    use = policy.in_use_rule(rules, asked, compromised=current.compromised)
    return replace(
        plan,
        replaces=current.username,
        grace=ends.at - now,
        grace_reason=ends.reason,
        in_use=use.rule.value,
        in_use_reason=use.reason + (f", for {output.text(use.cap)} at most" if use.cap is not None else ""),
        blocked=policy.blocked_for(rules, asked, compromised=current.compromised),
    )
