"""Tells the workers at once what a command has put on record. Losing it costs seconds: the sweep finds what is due."""

import logging
import os
from collections.abc import Callable
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery import Celery

    from worker.settings import Settings

SECONDS = 1.0
"""How long a command waits for the broker, whatever that does: a silent one held a sender for 15 seconds, by the library's own limits."""

ADVANCE = "rollover.advance_rotations"
"""The workers' task, by its name: importing the tasks would make this process a worker."""

log = logging.getLogger(__name__)  # nobody listens unless asked to: the output is for people, and a lost hint is none of their business


def ready(settings: "Settings") -> Callable[[str], None]:
    """What to call with a rotation that can go on, once it is on record. It takes at most about a second, and never fails.

    Everything slow is done here: importing Celery takes longer than all the rest.
    """
    reachable = _with_broker(settings)
    if reachable is None:
        return lambda _: None
    app = _application(reachable)

    def hint(rotation_id: str) -> None:
        sender = Thread(target=_send, args=(app, rotation_id), name="hint", daemon=True)
        sender.start()
        sender.join(SECONDS)
        if sender.is_alive():
            log.debug("the broker did not answer within %s s", SECONDS)

    return hint


def _with_broker(settings: "Settings") -> "Settings | None":
    """The settings with the broker: the configured one, else that of the `rollover up` of this data directory, if one has been there."""
    from rotation.errors import Invalid  # noqa: PLC0415 - imported when it runs, as everything here
    from worker.settings import load  # noqa: PLC0415

    if settings.broker_url is not None:
        return settings
    file = settings.data_dir / "run" / "broker.url"
    if not file.exists():
        return None
    try:
        return load({**os.environ, "ROLLOVER_BROKER_URL_FILE": str(file)})
    except Invalid:  # it is just being written
        return None


def _application(settings: "Settings") -> "Celery":
    """The workers' application, but for the time-outs."""
    from celery import Celery  # noqa: PLC0415

    from worker.app import celery_settings  # noqa: PLC0415

    quick = celery_settings(settings)
    limits = {"socket_timeout": SECONDS, "socket_connect_timeout": SECONDS} if str(quick["broker_url"]).startswith("redis") else {}
    quick["broker_transport_options"] = {**quick["broker_transport_options"], **limits}
    quick["broker_connection_timeout"] = SECONDS
    app = Celery("rollover", set_as_current=False)
    app.conf.update(quick)
    return app


def _send(app: "Celery", rotation_id: str) -> None:
    from kombu.exceptions import OperationalError  # noqa: PLC0415

    from worker.queues import Queue  # noqa: PLC0415

    with app.connection_for_write() as connection:
        away: tuple[type[BaseException], ...] = (
            OperationalError,
            OSError,
            *connection.connection_errors,
            *connection.channel_errors,
        )
        try:
            app.send_task(ADVANCE, args=[[rotation_id]], queue=Queue.URGENT.value, retry=False, connection=connection)
        except away as error:
            log.debug("the broker did not take a hint: %s", type(error).__name__)
