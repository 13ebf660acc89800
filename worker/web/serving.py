"""The process that answers Vercel's calls: `rollover web`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvicorn

from rotation.errors import Fault, Invalid
from rotation.store.sql import SqlStore
from rotation.vercel.exchange import HttpClient
from worker.web.app import application
from worker.web.hinting import Hinting
from worker.web.partner import Partner
from worker.web.vercel_keys import VercelKeys
from worker.web.vercel_tokens import VercelTokens
from worker.wiring import let_go, wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.settings import Settings

DRAIN_SECONDS = 30
"""Longer than a transaction of the store may take: what is on record is answered."""
KEPT_SECONDS = 65
"""How long an idle connection is kept: longer than common proxies do, so that they meet no closing one."""


def serve(settings: Settings, hint: Callable[[str], None]) -> None:
    """Answer until somebody ends this process. `hint` tells the workers of a rotation.

    Raises `Invalid` where it is not said whom Vercel's calls are for.
    """
    if settings.vercel_integration_id is None:
        raise Invalid(
            [Fault("ROLLOVER_VERCEL_INTEGRATION_ID", "is not set", "it is the id of your integration in Vercel's console, `oac_…`")]
        )
    ports = wire(settings)
    if not isinstance(ports.store, SqlStore):
        raise TypeError("only the wired store knows its fleet")
    tokens = VercelTokens(
        VercelKeys(settings.vercel_keys_url, HttpClient(ports.clock), ports.clock),
        ports.clock,
        issuer=settings.vercel_issuer,
        audience=settings.vercel_integration_id,
    )
    partner = Partner(ports, ports.store, tokens, max_grace=settings.max_grace)
    try:
        uvicorn.run(
            application(partner, Hinting(hint)),
            host=settings.web_host,
            port=settings.web_port,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            workers=1,
            http="h11",
            ws="none",
            timeout_keep_alive=KEPT_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    finally:
        let_go(ports)
