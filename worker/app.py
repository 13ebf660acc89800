"""The Celery application: `celery -A worker.app worker` and `celery -A worker.app beat`.

A message only says "go on with row N": it holds ids, and losing, doubling or delaying it is harmless. Hence JSON only, no results,
no retries and no `eta`: with Redis a message that waits longer than the visibility timeout is delivered again and again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from celery import Celery, signals
from kombu import Exchange
from kombu import Queue as BrokerQueue

from rotation.errors import Fault, Invalid
from worker import logs, transport
from worker.queues import Queue
from worker.settings import load

if TYPE_CHECKING:
    from worker.settings import Settings

TICK = "rollover.tick"

app = Celery("rollover", include=["worker.tasks"], set_as_current=False)


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Celery's configuration; each value was tried against killed workers, a flushed broker and a restarted one."""
    if settings.broker_url is None:
        raise Invalid([Fault("ROLLOVER_BROKER_URL", "is not set", "set it, or run everything on one machine with `rollover up`")])
    exchange = Exchange("rollover", type="direct", durable=True)
    return {
        "broker_url": settings.broker_url.reveal(),
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
        "worker_pool": "threads",
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
            "tick": {
                "task": TICK,
                "schedule": settings.tick_seconds,
                "options": {"queue": Queue.TICK.value, "expires": settings.tick_seconds},
            },
        },
    }


def _transport(settings: Settings) -> dict[str, Any]:
    """How to talk to the broker. The restore settings bring a killed worker's message back soon after the visibility timeout."""
    if settings.broker_url is None or not settings.broker_url.reveal().startswith("redis"):
        return {"client_properties": {"connection_name": "rollover"}}
    return {
        "visibility_timeout": settings.visibility_timeout_seconds,
        "unacked_restore_interval": 1,
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
    transport.mend()
    sender.config_from_object(celery_settings(load(os.environ)))


@signals.setup_logging.connect
def _log_as_we_do(**_: object) -> None:
    """Celery's own lines go through our logs, in one shape and redacted."""
    settings = load(os.environ)
    logs.configure(settings.log_format, settings.log_level, settings.secrets())
