"""The web application: which address is answered by what."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rotation.errors import RolloverError
from worker.web.partner import Call
from worker.web.refusals import NOTHING_HERE, OUR_FAULT, TOO_MANY, WRONG_METHOD, TooLarge, TooSlow, answer, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from worker.web.partner import Partner

LARGEST_BODY = 16 * 1024
BODY_SECONDS = 10.0
MOST_AT_ONCE = 256
"""Calls in hand; more are told to come again. Those that wait for a thread wait for others' transactions."""
ROTATE = "/v1/installations/{installation_id}/resources/{resource_id}/secrets/rotate"

log = structlog.get_logger()


def application(partner: Partner, hint: Callable[[str], None]) -> Starlette:
    """What a web server runs. `hint` tells the workers of a rotation that can go on, once the answer is away; it never fails."""
    in_hand = 0

    async def rotate(request: Request) -> Response:
        nonlocal in_hand
        if in_hand >= MOST_AT_ONCE:
            return answer(TOO_MANY)
        in_hand += 1
        try:
            return await taken_in(request)
        finally:
            in_hand -= 1

    async def taken_in(request: Request) -> Response:
        call = Call(
            request.path_params["installation_id"],
            request.path_params["resource_id"],
            request.headers.getlist("authorization"),
            request.headers.getlist("x-vercel-auth"),
            request.headers.getlist("idempotency-key"),
            await _body(request),
        )
        received = await run_in_threadpool(partner.rotate, call)
        told = None if received.rotation_id is None else BackgroundTask(hint, received.rotation_id)
        return JSONResponse({"sync": False}, HTTPStatus.ACCEPTED, background=told)

    web = Starlette(
        routes=[Route(ROTATE, rotate, methods=["POST"])],
        exception_handlers={RolloverError: _refused, HTTPException: _not_routed, ClientDisconnect: _gone, Exception: _failed},
    )
    web.router.redirect_slashes = False  # to an address that the caller names
    return web


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST_BODY:
                    raise TooLarge(f"the body has more than {LARGEST_BODY} bytes")
    except TimeoutError:
        raise TooSlow(f"the body did not come within {BODY_SECONDS:g} s") from None
    return bytes(body)


async def _gone(_: Request, __: Exception) -> Response:
    """Who asked has gone away in the middle of it: nobody reads this."""
    return Response(status_code=HTTPStatus.BAD_REQUEST)


async def _refused(request: Request, error: Exception) -> Response:
    told = refused(error) if isinstance(error, RolloverError) else None
    if told is None:
        return await _failed(request, error)
    log.info("call_refused", path=request.url.path, status=told.status_code, why=type(error).__name__, problem=str(error))
    return told


async def _not_routed(_: Request, error: Exception) -> Response:
    wrong_method = isinstance(error, HTTPException) and error.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    return answer(WRONG_METHOD if wrong_method else NOTHING_HERE)


async def _failed(request: Request, error: Exception) -> Response:
    log.error("call_failed", path=request.url.path, error=type(error).__name__)
    return answer(OUR_FAULT)
