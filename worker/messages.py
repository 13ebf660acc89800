"""What a message may be: exactly what our own processes send. Whatever else lies in the broker is dropped, and told.

Whoever can write to the broker should be able to send hints and nothing else. Celery and kombu expect well-formed messages: one that is
not ends a worker (TypeError in the loop that reads from the broker), is given back when that worker ends, and ends the next one too. So a
message is looked at twice, each time before the library touches it: as it comes out of Redis, and before Celery makes a task of it.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import structlog

from rotation.states import Alarm

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

LARGEST_BODY = 64 * 1024
"""Bytes: ours are a hundred times smaller."""
LONGEST_ID = 256
LONGEST_WORD = 1_024
MOST_IDS = 100
NEVER: Mapping[str, tuple[object, ...]] = {
    **dict.fromkeys(("eta", "compression", "group", "group_index", "chord", "shadow", "stamped_headers", "delivery_info"), (None,)),
    "retries": (None, 0),
    "timelimit": (None, [None, None]),
    "stamps": (None, {}),
}
"""Headers that ask for something, and what stands in ours."""

log = structlog.get_logger()


def refuse(problem: str, size: int) -> None:
    """Tell of a message that was dropped; nothing of what is in it is repeated."""
    log.warning(Alarm.MESSAGE_REFUSED, alarm=True, problem=problem, size=size)


def fault_of(message: Any, tasks: Collection[str]) -> str | None:  # noqa: ANN401 - kombu's message
    """Why this is no message of ours, or None. `tasks` are the names of those that this worker runs."""
    headers, body = message.headers, message.body
    if message.content_type != "application/json" or message.content_encoding != "utf-8":
        return "it is not JSON"
    if not isinstance(headers, dict) or not _plain(headers):
        return "its headers are not in order"
    task = headers.get("task")
    if not isinstance(task, str) or task not in tasks or task.startswith("celery."):
        return "it is for no task of ours"
    return _fault_of_headers(headers) or _fault_of_body(body)


def _fault_of_headers(headers: dict[str, object]) -> str | None:
    """Our messages are never late on purpose, never tried again, never limited and never part of anything larger."""
    if not _word(headers.get("id")):
        return "it has no id"
    if any(headers.get(name) not in allowed for name, allowed in NEVER.items()):
        return "it asks for what our messages never ask for"
    try:
        if headers.get("expires") is not None:
            datetime.fromisoformat(str(headers["expires"]))
    except ValueError:
        return "it expires at no time"
    return None


def _fault_of_body(body: object) -> str | None:
    if not isinstance(body, str | bytes) or len(body) > LARGEST_BODY:
        return "its body is too large"
    try:
        match json.loads(body):
            case [list() as arguments, dict() as named, dict() as embedded] if not named and not any(embedded.values()) and _ids(arguments):
                return None
    except (ValueError, RecursionError):
        pass
    return "its body holds something else than ids"


def _ids(arguments: list[object]) -> bool:
    """Nothing, or one list of ids."""
    match arguments:
        case []:
            return True
        case [list() as ids] if len(ids) <= MOST_IDS:
            return all(isinstance(one, str) and 0 < len(one) <= LONGEST_ID and one.isprintable() for one in ids)
    return False


def _plain(headers: dict[str, object]) -> bool:
    """Whether each is a short text, a number or nothing; of what ours never ask for, more may be told."""
    others = {name: value for name, value in headers.items() if name not in NEVER}
    return all(map(_word, headers)) and all(value is None or isinstance(value, bool | int) or _word(value) for value in others.values())


def _word(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_WORD


# -- as it comes out of Redis


def fault_of_envelope(envelope: object) -> str | None:
    """Why this is no message that kombu could have written, or None. It reads what it needs without a look at the types."""
    match envelope:
        case {
            "body": str() as body,
            "content-type": str() | None,
            "content-encoding": str() | None,
            "headers": dict() as headers,
            "properties": {"delivery_tag": str(), "delivery_info": {**delivery}, **properties},
        }:
            names = ("body_encoding", "priority", "correlation_id", "reply_to", "expiration", "delivery_mode")
            sound = all(isinstance(properties.get(name), str | int | None) for name in names)
            if sound and not headers.get("compression") and all(isinstance(one, str) for one in delivery.values()):
                return None if _opens(body, properties.get("body_encoding")) else "its body is not in base64"
    return "it is not in the form of a message"


def _opens(body: str, encoding: object) -> bool:
    if encoding is None:
        return True
    try:
        base64.b64decode(body)
    except ValueError:
        return False
    return encoding == "base64"
