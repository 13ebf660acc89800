"""What somebody could put into the queues who has the broker's password and means harm: by name, as the bytes that lie there."""

from __future__ import annotations

import base64
import json
import pickle
from typing import TYPE_CHECKING, Any

from worker.tasks import ADVANCE_RETIREMENTS, ADVANCE_ROTATIONS, SAMPLE_USE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

HUGE = 30 << 20
"""Bytes of a body."""
DEEP = 100_000
PLAIN: Mapping[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
WRITTEN_OTHERWISE = {
    "pickle": ("application/x-python-serialize", "pickle", "application/pickle"),
    "yaml": ("application/x-yaml", "yaml"),
    "nothing that is known": ("application/x-canary", "", "application/json; charset=pickle"),
}


class _Harm:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, evidence: Path) -> None:
        self._evidence = evidence

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self._evidence), "w")


def written(
    task: object = ADVANCE_ROTATIONS,
    arguments: object = (),
    named: object = None,
    *,
    embed: object = PLAIN,
    headers: object = None,
    properties: Mapping[str, object] | None = None,
    body: bytes | None = None,
    content_type: object = "application/json",
    encoding: object = "utf-8",
) -> bytes:
    """A message as kombu would have written it, but for what is given. `headers` that are no mapping stand for all of them."""
    content = json.dumps([arguments, {} if named is None else named, embed]).encode() if body is None else body
    ours = {
        "lang": "py",
        "task": task,
        "id": "canary",
        "root_id": "canary",
        "parent_id": None,
        "group": None,
        "argsrepr": "",
        "kwargsrepr": "",
    }
    return json.dumps(
        {
            "body": base64.b64encode(content).decode(),
            "content-encoding": encoding,
            "content-type": content_type,
            "headers": {**ours, **headers} if isinstance(headers, dict) else ours if headers is None else headers,
            "properties": {
                "correlation_id": "canary",
                "reply_to": "canary",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": "rollover.scheduled"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": "canary",
                **(properties or {}),
            },
        }
    ).encode()


def hostile(evidence: Path, real_id: str) -> Iterator[tuple[str, bytes]]:
    """All of them. `evidence` is what code that was smuggled in would leave behind; `real_id` is a rotation that is at rest."""
    yield from _smuggled(evidence)
    yield from _tasks()
    yield from _ids(real_id)
    yield from _headers()
    yield from _embedded(real_id)
    yield from _bodies()
    yield from _envelopes()


def _smuggled(evidence: Path) -> Iterator[tuple[str, bytes]]:
    pickled = pickle.dumps(_Harm(evidence))
    yaml = f"!!python/object/apply:builtins.open ['{evidence}', 'w']".encode()
    for what, types in WRITTEN_OTHERWISE.items():
        for content_type in types:
            for encoding in ("utf-8", "binary"):
                yield (
                    f"{what} as {content_type!r} in {encoding}",
                    written(body=yaml if what == "yaml" else pickled, content_type=content_type, encoding=encoding),
                )
    yield "pickle that says it is JSON", written(body=pickled)
    yield "pickle in a signature", written(embed={**PLAIN, "callbacks": [_signature(ADVANCE_ROTATIONS, serializer="pickle")]})


def _tasks() -> Iterator[tuple[str, bytes]]:
    for task in (
        "os.system",
        "rollover.advance_everything",
        "worker.tasks.process.close",
        "",
        None,
        7,
        ["rollover.tick"],
        {"a": 1},
        "x" * 10_000,
    ):
        yield f"the task {str(task)[:40]!r}", written(task, [["id"]])
    for task in ("celery.map", "celery.starmap", "celery.chunks", "celery.group", "celery.chord", "celery.chain", "celery.backend_cleanup"):
        yield f"Celery's own {task}", written(task, [_signature(ADVANCE_ROTATIONS), [["id"]]])


def _ids(real_id: str) -> Iterator[tuple[str, bytes]]:
    odd: tuple[object, ...] = (
        "rot_unknown", "'; DROP TABLE rotations; --", "%", "' OR '1'='1", "", "\x00", "\ud800", "ä" * 1_000, "x" * 1_000_000, 0, -1, 1e308,
        None, True, [], {}, [[real_id]], {"id": real_id}, f"{real_id} ", f"{real_id}\x00", real_id.upper(), "../../etc/passwd", "${jndi:x}",
    )  # fmt: skip
    for task in (ADVANCE_ROTATIONS, ADVANCE_RETIREMENTS, SAMPLE_USE):
        for one in odd:
            yield f"{task} of {str(one)[:30]!r}", written(task, [[one]])
    for arguments in ([], [1], [None], ["rot"], [{"a": 1}], [["id"], ["id"]], [["id"] * 10_000], {"a": 1}, None, 7, "text"):
        yield f"the arguments {str(arguments)[:30]}", written(arguments=arguments)
    others: tuple[object, ...] = ({"ids": 7}, {"ids": ["id"], "more": 1}, {"self": 1}, [], 7, "text")
    for named in others:
        yield f"the named arguments {str(named)[:30]}", written(named=named)


def _headers() -> Iterator[tuple[str, bytes]]:
    times: tuple[object, ...] = (
        "9999-12-31T23:59:59+00:00",
        "0001-01-01T00:00:00+00:00",
        "yesterday",
        -1,
        1e308,
        "NaN",
        [],
        {},
        "2026-01-01T00:00:00+99:99",
    )
    for name in ("eta", "expires"):
        yield from ((f"{name} {one!r}", written(arguments=[["id"]], headers={name: one})) for one in times)
    others: Mapping[str, tuple[object, ...]] = {
        "retries": (-1, 1e9, "many", None, []),
        "timelimit": ([-1, -1], [1e308, 1e308], ["a", "b"], "soon", None, [None], {}),
        "id": (None, 7, [], {}, "x" * 100_000, "\x00"),
        "group": ({}, 7),
        "root_id": ({}, 7),
        "shadow": ({}, "x" * 100_000, 7),
        "origin": (7, {}),
        "lang": ("c", 7, None),
        "argsrepr": ({}, "x" * 1_000_000),
        "ignore_result": ("perhaps", 0),
        "stamped_headers": (7, ["x"], "x"),
        "stamps": (7, ["x"]),
        "compression": ("application/x-gzip", "zlib", "application/x-canary", 7),
        "replaced_task_nesting": ("deep", 1e9),
        "delivery_info": (7, {}),
    }
    for name, values in others.items():
        yield from ((f"{name} {str(one)[:30]!r}", written(arguments=[["id"]], headers={name: one})) for one in values)
    yield from ((f"headers that are {headers!r}", written(headers=headers)) for headers in (7, [], "text", [1]))
    yield "protocol 1", written(headers=False, body=json.dumps({"task": ADVANCE_ROTATIONS, "id": "x", "args": [["id"]]}).encode())
    yield "protocol 1 without a task", written(headers=False, body=b'{"id": 7}')


def _embedded(real_id: str) -> Iterator[tuple[str, bytes]]:
    signatures: tuple[object, ...] = (
        _signature("os.system"), _signature(ADVANCE_ROTATIONS), _signature(ADVANCE_ROTATIONS, countdown=-1),
        _signature(ADVANCE_ROTATIONS, queue="celery"), _signature(ADVANCE_ROTATIONS, exchange="canary", routing_key="canary"),
        {"task": None}, {}, 7, "text", [_signature(ADVANCE_ROTATIONS)],
    )  # fmt: skip
    for where in PLAIN:
        for signature in signatures:
            for given in (signature, [signature]):
                yield f"{where}: {str(given)[:60]}", written(arguments=[[real_id]], embed={**PLAIN, where: given})
    others: tuple[object, ...] = (None, 7, [], "text", {"canary": 1})
    yield from ((f"embedded {embed!r}", written(arguments=[["id"]], embed=embed)) for embed in others)


def _bodies() -> Iterator[tuple[str, bytes]]:
    for body in (b"", b"{", b"[]", b"[[]]", b"[1, 2, 3]", b"[[], {}, {}, {}]", b"null", b"\xff\xfe", b"[[NaN], {}, {}]"):
        yield f"the body {body!r}", written(body=body)
    yield "a body of many lists in lists", written(body=b"[" * DEEP + b"]" * DEEP)
    yield "an argument of many lists in lists", written(body=b"[[" + b"[" * DEEP + b"]" * DEEP + b"], {}, {}]")
    yield "a body of tens of megabytes", written(body=b'[[["' + b"x" * HUGE + b'"]], {}, {}]')
    yield "another body of tens of megabytes", written(body=b"[" + b"0," * (HUGE // 2) + b"0]")


def _envelopes() -> Iterator[tuple[str, bytes]]:
    whole = json.loads(written(arguments=[["id"]]))
    odd: tuple[Mapping[str, object], ...] = (
        {"body_encoding": "rot13"}, {"body_encoding": 7}, {"delivery_tag": None}, {"delivery_tag": []}, {"priority": "high"},
        {"delivery_info": None}, {"delivery_info": {}}, {"reply_to": "rollover.urgent"}, {"reply_to": 7}, {"correlation_id": {}},
    )  # fmt: skip
    for one in odd:
        yield f"properties {one}", written(arguments=[["id"]], properties=one)
    for name in whole:
        yield f"without {name}", json.dumps({key: value for key, value in whole.items() if key != name}).encode()
        yield f"{name} is null", json.dumps({**whole, name: None}).encode()
    for name in whole["properties"]:
        kept = {key: value for key, value in whole["properties"].items() if key != name}
        yield f"without the property {name}", json.dumps({**whole, "properties": kept}).encode()
    for raw in (
        b"",
        b"garbage",
        b"7",
        b"[]",
        b"null",
        b"{}",
        b'"text"',
        b"\xff\xfe\x00",
        b"{" * DEEP,
        b"[" * DEEP + b"]" * DEEP,
        pickle.dumps({}),
    ):
        yield f"no message at all: {raw[:20]!r}", raw


def _signature(task: str, **options: object) -> dict[str, object]:
    return {"task": task, "args": [["id"]], "kwargs": {}, "options": options, "subtask_type": None, "immutable": True}
