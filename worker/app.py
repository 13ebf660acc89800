"""The Celery application: `celery -A worker.app worker` and `celery -A worker.app beat`.

A message only says "go on with row N": it holds ids, and losing, doubling or delaying it is harmless. Hence JSON only, no results,
no retries and no `eta`: with Redis a message that waits longer than the visibility timeout is delivered again and again.
"""

from __future__ import annotations

import os
import sys
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from celery import Celery, signals
from celery.exceptions import SecurityWarning
from kombu import Exchange
from kombu import Queue as BrokerQueue

from rotation.errors import Fault, Invalid
from worker import lean, logs, transport  # noqa: F401 - lean before what uses structlog and httpx
from worker.machine import leave_no_core
from worker.monitoring import EventsTogether
from worker.queues import Queue
from worker.settings import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.settings import Settings

TICK = "rollover.tick"
SEAL_AUDIT = "rollover.seal_audit"
SEAL_AUDIT_SECONDS = 60.0
WATCH = "rollover.watch"
WATCH_SECONDS = 60.0
NEVER = datetime.fromtimestamp(0, UTC)
WRONG_USE = 2

app = Celery("rollover", include=["worker.tasks"], set_as_current=False)
app.steps["consumer"].add(EventsTogether)


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Celery's configuration; each value was tried against killed workers, a flushed broker and a restarted one."""
    if settings.broker_url is None:
        raise Invalid([Fault("ROLLOVER_BROKER_URL", "is not set", "set it, or run everything on one machine with `rollover up`")])
    exchange = Exchange("rollover", type="direct", durable=True)
    return {
        "broker_url": settings.broker_url.reveal(),
        "broker_use_ssl": transport.tls(settings.broker_url.reveal()),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": _transport(settings),
        "task_queues": [BrokerQueue(queue, exchange, routing_key=queue, durable=True) for queue in Queue],
        "task_default_queue": Queue.SCHEDULED.value,
        "task_default_exchange": "rollover",
        "task_default_routing_key": Queue.SCHEDULED.value,
        "task_create_missing_queues": False,
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "result_backend": None,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_acks_late": True,
        "task_acks_on_failure_or_timeout": True,
        "task_reject_on_worker_lost": True,
        "task_publish_retry": False,
        "worker_prefetch_multiplier": 1,
        # Celery would raise the count again in the threads of the pool, on a connection that is not theirs: over AMQP they wait for ever.
        "worker_enable_prefetch_count_reduction": False,
        "worker_consumer": "worker.consumer:StrictConsumer",
        "worker_pool": _pool(sys.argv),
        "worker_concurrency": settings.worker_threads,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "enable_utc": True,
        "timezone": "UTC",
        "beat_scheduler": "celery.beat:Scheduler",
        "beat_max_loop_interval": settings.tick_seconds,
        "beat_schedule": {
            "tick": _every(settings.tick_seconds, TICK),
            "seal-audit": _every(SEAL_AUDIT_SECONDS, SEAL_AUDIT),
            "watch": _every(WATCH_SECONDS, WATCH),
        },
    }


def _pool(arguments: Sequence[str]) -> str:
    """Threads, unless Celery's command was told otherwise: it takes `--pool prefork` for its own default, which settings overrule."""
    return "prefork" if {"prefork", "-Pprefork", "--pool=prefork"} & set(arguments) else "threads"


def _every(seconds: float, task: str) -> dict[str, Any]:
    """An entry of beat's schedule, due at once when beat starts. One that waits for longer than its period is of no use any more.

    Without a second try, beat would go on using a connection that is lost: over AMQP it never connects again.
    """
    options = {"queue": Queue.TICK.value, "expires": seconds, "retry": True, "retry_policy": transport.RECONNECT}
    return {"task": task, "schedule": seconds, "options": options, "last_run_at": NEVER}


def _transport(settings: Settings) -> dict[str, Any]:
    """How to talk to the broker. The restore settings bring a killed worker's message back soon after the visibility timeout."""
    if settings.broker_url is None or not settings.broker_url.reveal().startswith("redis"):
        # A worker waits for ten answers, one after the other, before it ends.
        return {"client_properties": {"connection_name": "rollover"}, "read_timeout": 3, "write_timeout": 3}
    return {
        "visibility_timeout": settings.visibility_timeout_seconds,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "client_name": "rollover",
        "max_connections": settings.worker_threads + 16,
    }


@app.on_configure.connect  # the environment is read when Celery first needs it, not on import
def _configure(sender: Celery, **_: object) -> None:
    """Ends the process with what is wrong with the settings: Celery would log any other exception, and go on with defaults of its own."""
    try:
        settings = celery_settings(load(os.environ))
    except Invalid as error:
        sys.stderr.write("\n  ".join(["rollover: the settings are wrong", *map(str, error.faults)]) + "\n")
        raise SystemExit(WRONG_USE) from None
    leave_no_core()
    transport.mend()
    # Who can write to the broker can run nothing here: messages are JSON and hold ids.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    sender.config_from_object(settings)


@signals.setup_logging.connect
def _log_as_we_do(**_: object) -> None:
    """Celery's own lines go through our logs, in one shape and redacted."""
    settings = load(os.environ)
    logs.configure(settings.log_format, settings.log_level, settings.secrets())
