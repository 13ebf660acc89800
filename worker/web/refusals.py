"""How a refusal looks, in the shape that Vercel documents.

`{"error": {"code", "message", "user": {"message"}, "fields": [{"key", "message"}]}}`, where the last two may be missing. `user.message`
is a sentence for the customer, who sees it in Vercel's dashboard. Nothing tells more of our inside than who asks needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from rotation.errors import Conflict, Invalid, NotFound, OutcomeUnknown, RolloverError, Unavailable
from worker.web.vercel_tokens import NotAllowed, NotAuthenticated, RoleTooLow

if TYPE_CHECKING:
    from collections.abc import Mapping

LATER = "The credentials cannot be rotated right now. Please try again in a minute."
SUPPORT = "The credentials of this database cannot be rotated at the moment. Please ask the provider's support."
ADMINISTRATORS = "Only an administrator of the team may rotate secrets."
PAUSE_SECONDS = 5.0
"""When to come again where nothing better is known."""


class TooLarge(RolloverError):
    """A body of more than is read."""


class TooSlow(RolloverError):
    """A body that does not come."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One kind of refusal. `customer` is the sentence for the customer, if there is one for him."""

    status: HTTPStatus
    code: str
    message: str
    customer: str = ""


NOTHING_HERE = Refusal(HTTPStatus.NOT_FOUND, "not_found", "there is nothing here")
WRONG_METHOD = Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "this is asked for otherwise")
OUR_FAULT = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "this is a fault of ours", SUPPORT)
TOO_MANY = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "too much at once: ask again", LATER)
REFUSALS: Mapping[type[RolloverError], Refusal] = {
    NotAuthenticated: Refusal(HTTPStatus.UNAUTHORIZED, "unauthorized", "the token is not accepted"),
    RoleTooLow: Refusal(HTTPStatus.FORBIDDEN, "forbidden", "who asks may not do this", ADMINISTRATORS),
    NotAllowed: Refusal(HTTPStatus.FORBIDDEN, "forbidden", "the token is for another installation", SUPPORT),
    NotFound: Refusal(HTTPStatus.NOT_FOUND, "not_found", "there is no such resource"),
    Conflict: Refusal(HTTPStatus.CONFLICT, "conflict", "the state of the resource, or an earlier call with this key, forbids it", SUPPORT),
    Invalid: Refusal(HTTPStatus.BAD_REQUEST, "validation_error", "the request cannot be understood"),
    TooSlow: Refusal(HTTPStatus.REQUEST_TIMEOUT, "validation_error", "the body did not come in time", LATER),
    TooLarge: Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "validation_error", "the body is too long"),
    Unavailable: Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "not now: ask again", LATER),
    OutcomeUnknown: Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "not now: ask again with the same key", LATER),
}


def answer(refusal: Refusal, error: RolloverError | None = None) -> JSONResponse:
    """The answer, with the fields that have faults and when to come again."""
    body: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if refusal.customer:
        body["user"] = {"message": refusal.customer}
    if isinstance(error, Invalid):
        body["fields"] = [{"key": one.field, "message": f"{one.problem}{f': {one.advice}' if one.advice else ''}"} for one in error.faults]
    return JSONResponse({"error": body}, refusal.status, _headers(refusal.status, error))


def refused(error: RolloverError) -> JSONResponse | None:
    """The answer to what the program raised on purpose; None for what is a fault of ours."""
    refusal = next((refusal for kind, refusal in REFUSALS.items() if isinstance(error, kind)), None)
    return None if refusal is None else answer(refusal, error)


def _headers(status: HTTPStatus, error: RolloverError | None) -> dict[str, str]:
    if status is HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": "Bearer"}
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        return {"Allow": "POST"}
    if status is not HTTPStatus.SERVICE_UNAVAILABLE:
        return {}
    pause = error.retry_after.total_seconds() if isinstance(error, Unavailable) and error.retry_after else PAUSE_SECONDS
    return {"Retry-After": str(max(1, math.ceil(pause)))}
