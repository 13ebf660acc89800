"""What a message may be, decided before Celery looks at it: over every transport, what our own processes send and nothing else."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.canary.hostile_messages import hostile, written
from worker.app import TICK
from worker.hints import MOST_ROWS
from worker.messages import LARGEST_BODY, MOST_IDS, fault_of, fault_of_envelope
from worker.tasks import ADVANCE_RETIREMENTS, ADVANCE_ROTATIONS, SAMPLE_USE

TASKS = (TICK, ADVANCE_ROTATIONS, ADVANCE_RETIREMENTS, SAMPLE_USE, "celery.map")
BY_BEAT = {"expires": "2026-11-28T10:05:14.768516+00:00", "celery_beat_task": True, "periodic_task_name": "tick"}
HOSTILE = list(hostile(Path("/nonexistent/evidence"), "rot_1"))


def received(raw: bytes) -> Any:  # noqa: ANN401 - as kombu's message
    """A message as a consumer has it, over any transport."""
    whole = json.loads(raw)
    body = base64.b64decode(whole["body"])
    return SimpleNamespace(
        headers=whole["headers"], body=body, content_type=whole["content-type"], content_encoding=whole["content-encoding"]
    )


def judged(raw: bytes) -> str | None:
    """Why it is dropped, at either of the two looks."""
    try:
        envelope = json.loads(raw)
    except (ValueError, RecursionError):
        return "it is not JSON"
    return fault_of_envelope(envelope) or fault_of(received(raw), TASKS)


@pytest.mark.parametrize(
    "raw",
    [
        written(TICK, headers=BY_BEAT),
        written(ADVANCE_ROTATIONS, [["rot_01a2219c9edca41531c4cffdbef3"]]),
        written(SAMPLE_USE, [["pg-eu-1", "Kunden & Söhne"]]),
        written(ADVANCE_RETIREMENTS, [["cred_1"] * MOST_ROWS]),
    ],
)
def test_what_our_processes_send_is_in_order(raw: bytes) -> None:
    assert judged(raw) is None


def test_most_of_what_is_hostile_is_dropped_and_the_rest_are_hints_about_nothing() -> None:
    passed = [name for name, raw in HOSTILE if judged(raw) is None]
    assert len(passed) < len(HOSTILE) / 5
    for name, raw in HOSTILE:
        if name in passed:
            assert json.loads(received(raw).body)[0] in ([], *([[one]] for one in ids_that_are_texts()), [["id"]], [["rot_1"]]), name


def ids_that_are_texts() -> list[str]:
    return ["rot_unknown", "'; DROP TABLE rotations; --", "%", "' OR '1'='1", "rot_1 ", "ROT_1", "../../etc/passwd", "${jndi:x}"]


@pytest.mark.parametrize("ids", [["x" * 257], [""], ["a\nb"], ["\x00"], [7], ["id"] * (MOST_IDS + 1), "ids", {"a": 1}])
def test_ids_are_a_few_short_printable_texts(ids: object) -> None:
    assert judged(written(arguments=[ids])) == "its body holds something else than ids"


def test_a_large_body_is_not_even_read() -> None:
    assert judged(written(body=b"[" * (LARGEST_BODY + 1))) == "its body is too large"


@pytest.mark.parametrize("name", ["rollover.unknown", "celery.map", "", "os.system"])
def test_only_tasks_of_ours_are_run(name: str) -> None:
    assert judged(written(name, [["id"]])) == "it is for no task of ours"
