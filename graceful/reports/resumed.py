"""Where interrupted jobs went: each run after an interruption is noted, and moved to the report that tells of it.

One hash, ``graceful:resumed``: the field is ``<job id>:<how often it had been interrupted>``, the value JSON. Only jobs
that have been interrupted are noted, by the process that runs them; what cannot be noted is forgotten.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import router
from redis import Redis
from redis.exceptions import RedisError

from graceful.core.deadline import Deadline
from graceful.core.phases import JobOutcome
from graceful.core.records import utc_now
from graceful.core.text import cut
from graceful.core.untrusted import EARLIEST, LATEST, NAME_LIMIT
from graceful.models import NAME_LENGTH, ReportedJob
from graceful.reports import log, set_aside
from graceful.reports.archive import fresh_connection
from graceful.reports.rows import stored_time
from graceful.reports.set_aside import Script
from graceful.threads import Bounded

RESUMED_KEY = "graceful:resumed"
MOST_ENTRIES = 10_000
EXPIRE_SECONDS = 7 * 24 * 3600
FORGET = timedelta(days=1)
"""An entry whose report does not turn up, or of a run whose end nobody noted, is removed after that;
so is one of the future."""
BATCH = 200
LONGEST_ENTRY = 4096

NOTE_SCRIPT = """
-- KEYS: resumed. ARGV: field, value, most entries, seconds to keep them, the value that it replaces ('' for none).
local there = redis.call('HGET', KEYS[1], ARGV[1]) or ''
local full = redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3])
if there ~= ARGV[5] or (there == '' and full) then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"""

logger = logging.getLogger("graceful.reports")


class Resumed(NamedTuple):
    """A run of a job that had been interrupted.

    Args:
        job: the job's id.
        interruptions: how often it had been interrupted when it was started.
        at: when it was started.
        worker: name of the worker.
        release: the worker's.
        outcome: how the run ended, empty while it is not over.
        ended_at: when.
    """

    job: str
    interruptions: int
    at: datetime
    worker: str = ""
    release: str = ""
    outcome: str = ""
    ended_at: datetime | None = None

    @property
    def field(self) -> str:
        return f"{self.job}:{self.interruptions}"


def note_start(connection: Redis, run: Resumed) -> None:
    """Note that an interrupted job is started again; the first of several runs counts. Never raises."""
    _note(connection, run, _value(run), instead_of="")


def note_end(connection: Redis, run: Resumed, outcome: JobOutcome, at: datetime) -> None:
    """Note how that run ended, unless its start was not noted or has been forgotten. Never raises."""
    ended = run._replace(outcome=outcome.value, ended_at=at)
    _note(connection, run, _value(ended), instead_of=_value(run))


def move(connection: Redis, seconds: float) -> int:
    """Move what was noted to the archived reports. Never raises a database error.

    Args:
        connection: a client of the server.
        seconds: for the database.

    Returns:
        how many entries were moved or given up.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    client: Any = connection
    # Any of them: entries whose runs take hours must not stand before those that are over.
    found: list[Any] = set_aside.retrying(connection, (RESUMED_KEY,), lambda: client.hrandfield(RESUMED_KEY, BATCH))
    if not found:
        return 0
    entries = {field: value for field, value in zip(found, client.hmget(RESUMED_KEY, found), strict=True) if value}
    over: list[Any] = []
    Bounded(lambda: _store(entries, over, seconds)).wait(seconds)
    done = list(over)
    if done:
        client.hdel(RESUMED_KEY, *done)
    return len(done)


def read(field: bytes | str, value: bytes | str) -> Resumed | None:
    """An entry; None for one that is not ours."""
    try:
        name = field.decode() if isinstance(field, bytes) else field
        job, _colon, count = name.rpartition(":")
        if len(value) > LONGEST_ENTRY or not count.isdecimal() or not 0 < len(count) < 10:
            return None
        if "\x00" in job:  # Which no database takes.
            return None
        entry = json.loads(value)
        return Resumed(
            job=job,
            interruptions=int(count),
            at=_moment(entry["at"]),
            worker=_name(entry, "worker"),
            release=_name(entry, "release"),
            outcome=JobOutcome(entry["outcome"]).value if entry.get("outcome") else "",
            ended_at=_moment(entry["ended_at"]) if entry.get("ended_at") else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def _value(run: Resumed) -> str:
    value = {
        "at": run.at.isoformat(),
        "worker": cut(run.worker, NAME_LENGTH),
        "release": cut(run.release, NAME_LENGTH),
        "outcome": run.outcome,
        "ended_at": run.ended_at.isoformat() if run.ended_at else None,
    }
    return json.dumps(value)


def _note(connection: Redis, run: Resumed, value: str, *, instead_of: str) -> None:
    if len(run.field) > NAME_LIMIT:
        return
    args = [run.field, value, MOST_ENTRIES, EXPIRE_SECONDS, instead_of]
    with suppress(RedisError):
        Script(connection, NOTE_SCRIPT)(keys=[RESUMED_KEY], args=args)


def _store(entries: Mapping[Any, Any], over: list[Any], seconds: float) -> None:
    deadline = Deadline.after(seconds)
    try:
        alias = router.db_for_write(ReportedJob)
        with fresh_connection(alias, deadline):
            for field, value in entries.items():
                if deadline.expired:
                    break
                run = read(field, value)
                if run is None or _stored(run, alias):
                    over.append(field)
    except Exception as error:  # A driver's own included.
        logger.info(log.RESUMED_NOT_MOVED, f"{type(error).__name__}: {error}")


def _stored(run: Resumed, alias: str) -> bool:
    """Whether the entry is done with: stored with its end, or too old."""
    jobs = ReportedJob.objects.using(alias).filter(
        job_id=cut(run.job, NAME_LENGTH), interruptions=run.interruptions, again_outcome=""
    )
    changed = jobs.update(
        again_at=stored_time(run.at),
        again_worker=run.worker,
        again_release=run.release,
        again_outcome=run.outcome,
        again_ended_at=None if run.ended_at is None else stored_time(run.ended_at),
    )
    return bool(changed and run.outcome) or abs(utc_now() - run.at) > FORGET


def _moment(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None or not EARLIEST <= at <= LATEST:
        raise ValueError(text)
    return at


def _name(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key, "")
    if not isinstance(value, str):
        raise ValueError(key)
    return cut("".join(char for char in value if char != "\x00" and not "\ud800" <= char <= "\udfff"), NAME_LENGTH)
