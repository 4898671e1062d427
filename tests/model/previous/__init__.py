"""A worker of the version before, for rolling deploys: its Lua scripts as they were, and how it called them.

The scripts were written down when the version after it was begun; key names, fields and arguments are theirs. They are
not to be changed: what is explored beside them must stay able to live with them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rq import Queue, Worker
from rq.job import Job
from rq.timeouts import BaseDeathPenalty

from tests.model import engine
from tests.model.engine import ModelRedis

SCRIPTS = {path.stem: path.read_text() for path in sorted(Path(__file__).parent.glob("*.lua"))}
NAMES = {text: f"previous {name}" for name, text in SCRIPTS.items()}
HELD_SECONDS = 7 * 24 * 3600


class PreviousWorker:
    """What a worker of the version before says to Redis, from its start to its end.

    Args:
        name: its name, of which its id is made.
        pid: its pid.
        machine: where it runs.
        queue: name of its queue.
    """

    def __init__(self, name: str, pid: int, machine: str, queue: str) -> None:
        self.connection = ModelRedis()
        self.worker_id = f"{name}.previous"
        self.queue = Queue(queue, connection=self.connection)
        self._count = 0
        self._machine = machine
        process = {"machine": machine, "pid": pid, "started": f"t{pid}"}
        self.registration = json.dumps(
            {
                "life": self.worker_id,
                "worker": name,
                "queues": [queue],
                "process": process,
                "oom_kills": None,
                "scheduler": "",
            }
        )

    def _run(self, script: str, keys: list[str], args: list[Any]) -> Any:
        return self.connection.register_script(SCRIPTS[script])(keys=keys, args=args)

    def beat(self) -> None:
        keys = ["graceful:workers", "graceful:beats", f"graceful:on:{self._machine}"]
        self._run("beat", keys, [self.worker_id, self.registration, 60, HELD_SECONDS, 30])

    def fetch(self) -> str | None:
        keys = [
            f"graceful:held:{self.worker_id}",
            "graceful:holders",
            self.queue.key,
            self.queue.intermediate_queue_key,
        ]
        reply = self._run("fetch", keys, [f"{self.worker_id}:{self._count}", self.worker_id, HELD_SECONDS, "rq:job:"])
        self._count += 1
        return reply[1].decode() if reply else None

    def claim(self, job_id: str, pid: int) -> bool:
        keys = [f"graceful:held:{self.worker_id}", "graceful:holders"]
        return bool(self._run("claim", keys, [self.worker_id, job_id, pid, f"t{pid}"]))

    def give_back(self, job: Job, execution: Any, count: bool) -> str:
        keys = [
            self.queue.key,
            self.queue.intermediate_queue_key,
            f"{self.queue.intermediate_queue_key}:first_seen:{job.id}",
            job.key,
            f"rq:wip:{self.queue.name}",
            f"rq:executions:{job.id}",
            str(execution.key) if execution else "graceful:none",
            str(getattr(execution, "worker_executions_key", "graceful:none")) if execution else "graceful:none",
            "graceful:holders",
        ]
        args = [
            job.id,
            execution.composite_key if execution else "",
            execution.id if execution else "",
            "graceful_interruptions" if count else "",
            3,
            self.worker_id,
        ]
        return str(self._run("give_back", keys, args)[0].decode())

    def leave(self) -> None:
        keys = ["graceful:workers", "graceful:beats", f"graceful:on:{self._machine}", f"graceful:held:{self.worker_id}"]
        self._run("leave", [*keys, "graceful:holders", "graceful:journal"], [self.worker_id, "1", "rq:job:", ""])


class _NoPenalty(BaseDeathPenalty):  # type: ignore[misc]
    def setup_death_penalty(self) -> None: ...

    def cancel_death_penalty(self) -> None: ...


class RQ(Worker):
    """RQ's part of it."""

    death_penalty_class = _NoPenalty  # type: ignore[assignment]

    def procline(self, message: str) -> None: ...

    def get_redis_server_version(self) -> tuple[int, int, int]:
        return (7, 0, 0)

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        super().prepare_job_execution(job, True)


engine.SCRIPT_NAMES.update(NAMES)
