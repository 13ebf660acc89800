"""What is looked at besides the rows that are due: who uses which credential.

Use is not an instant. Serverless clients hold no session between requests, so the sessions of each server are sampled every minute, and
a credential counts as in use while it was seen within its quiet time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from rotation.cases import Deadline
from rotation.errors import NotAsked, OutcomeUnknown, Refused, Unavailable
from rotation.states import Alarm

if TYPE_CHECKING:
    from rotation.ports import Ports

log = structlog.get_logger()


def sample_use(server_name: str, ports: Ports) -> int:
    """Note who is logged in on a server now. Gives how many groups of sessions were seen.

    A server that does not answer is only told: until it does, retirement counts its credentials as in use.
    """
    server = ports.store.server(server_name)
    deadline = Deadline(ports.clock.monotonic() + ports.terms.call_deadline.total_seconds())
    try:
        sessions = ports.engines[server.engine].usage(server, deadline)
    except NotAsked as error:
        log.info("use_not_sampled", server=server_name, problem=str(error))
        return 0
    except (Refused, Unavailable, OutcomeUnknown) as error:
        if ports.store.raise_alarm(Alarm.USE_UNREADABLE, server_name, str(error)):
            log.warning(Alarm.USE_UNREADABLE, alarm=True, server=server_name, problem=str(error))
        return 0
    ports.store.see(server, sessions)
    return len(sessions)
