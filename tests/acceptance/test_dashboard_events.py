"""What a task dashboard hears, although the events of tasks leave together."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from celery import Celery

from tests.rigs import CustomersServer, Rig
from worker.app import TICK, celery_settings
from worker.queues import Queue
from worker.settings import load

if TYPE_CHECKING:
    from pathlib import Path


def test_every_task_of_a_worker_is_heard_from_its_receipt_to_its_end(tmp_path: Path, customers: CustomersServer) -> None:
    with Rig(tmp_path, [customers]) as rig:
        rig.start(1, 0)
        listener = Celery("listener", set_as_current=False)
        listener.config_from_object(celery_settings(load(rig.environment)))
        heard: dict[str, list[str]] = {}

        def hear(event: dict[str, Any]) -> None:
            if str(event["type"]).startswith("task-"):
                heard.setdefault(event["uuid"], []).append(event["type"])

        with listener.connection_for_read() as connection:
            receiver = listener.events.Receiver(connection, handlers={"*": hear})
            listening = threading.Thread(target=lambda: receiver.capture(limit=None, timeout=20, wakeup=False), daemon=True)
            listening.start()
            tasks = [listener.send_task(TICK, queue=Queue.TICK.value).id for _ in range(3)]
            rig.wait("the dashboard knows the ends", lambda: all("task-succeeded" in heard.get(task, []) for task in tasks))
            receiver.should_stop = True
            listening.join()
        for task in tasks:
            assert [one for one in heard[task] if one != "task-sent"] == ["task-received", "task-started", "task-succeeded"]
        listener.close()
