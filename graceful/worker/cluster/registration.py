"""The registration of a worker: what is kept of it in Redis for the case that it is killed.

Each start of a worker has an id of its own, the worker id, which is also that of its report. A name can be taken again
by a later worker, an id cannot.

Keys: ``graceful:workers`` (hash: id to the worker's registration), ``graceful:beats`` (sorted set: id to the server's
time of its last heartbeat), ``graceful:on:<machine>`` (set: ids of the workers on one machine), ``graceful:held:<id>``
(hash: its job in flight), ``graceful:holders`` (hash: job id to the id of the worker that holds it). Times are the
server's, so that no machine's clock matters.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from graceful.core import untrusted
from graceful.exceptions import UnreadableReport
from graceful.worker.cluster.process_identity import Process, oom_kills

WORKERS_KEY = "graceful:workers"
HEARTBEATS_KEY = "graceful:beats"
MACHINE_KEY = "graceful:on:{}"
ENCODING = ("utf-8", "surrogateescape")


class Registration(NamedTuple):
    """What a reaper needs to know of a worker that was killed.

    Args:
        worker_id: its id; ``life`` in the JSON.
        worker: its name.
        queues: names of its queues.
        process: its process.
        oom_kills: the kernel's count at its start, see :func:`.process_identity.oom_kills`.
        scheduler: the name under which its scheduler holds locks; empty if it has none.
    """

    worker_id: str
    worker: str
    queues: tuple[str, ...]
    process: Process
    oom_kills: int | None = None
    scheduler: str = ""

    @classmethod
    def here(cls, worker_id: str, worker: str, queues: tuple[str, ...]) -> Registration:
        return cls(worker_id, worker, queues, Process.here(), oom_kills())

    def to_json(self) -> str:
        fields = self._asdict()
        return json.dumps({"life": fields.pop("worker_id"), **fields, "process": self.process._asdict()})

    @classmethod
    def from_json(cls, text: str | bytes) -> Registration | None:
        """Read it back; None if it is not a registration."""
        try:
            fields = untrusted.Fields(untrusted.parse(text), "")
            process = untrusted.Fields(fields.parsed.get("process"), "process.")
            pid = process.whole("pid")
            host = process.text("host") if process.parsed.get("host") else ""
            return (
                cls(
                    worker_id=fields.name("life"),
                    worker=fields.name("worker"),
                    queues=fields.names("queues"),
                    process=Process(process.name("machine"), pid, process.text("started"), host),
                    oom_kills=_count(fields.parsed.get("oom_kills")),
                    scheduler=fields.name("scheduler") if fields.parsed.get("scheduler") else "",
                )
                if pid > 0
                else None
            )
        except UnreadableReport:
            return None


def _count(value: object) -> int | None:
    """A counter that is only compared: an invalid one is the same as none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def raw(worker_id: str) -> bytes:
    """A worker's id as it is in Redis: a foreign one need not be valid text."""
    return worker_id.encode(*ENCODING)
