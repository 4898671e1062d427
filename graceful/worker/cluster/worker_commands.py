"""Telling living workers to be quiet, to take jobs again, or to stop, and seeing what becomes of it.

The commands go through RQ's own channel (``rq.command``), which each worker listens to anyway. A message there reaches
who listens at that instant and nobody else, so what counts is what the worker's journal entry says afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import redis
from redis.exceptions import RedisError
from rq.command import PUBSUB_CHANNEL_TEMPLATE

from graceful.reports.journal import Journal
from graceful.worker.cluster.fleet import LiveWorker, fleet, state_of
from graceful.worker.compat import rq_private
from graceful.worker.shutdown import os_signals


class Command(StrEnum):
    """What a worker can be told."""

    QUIET = os_signals.QUIET_COMMAND
    RESUME = os_signals.RESUME_COMMAND
    STOP = os_signals.SHUTDOWN_COMMAND


@dataclass(frozen=True, slots=True)
class Selection:
    """Which workers are meant: all that fit each selector that is not empty.

    Args:
        names: of workers, in full.
        host: name of their machine.
        queue: one of their queues.
        release: their release.
        ids: of their reports, which are different at each start.
    """

    names: frozenset[str] = frozenset()
    host: str | None = None
    queue: str | None = None
    release: str | None = None
    ids: frozenset[str] = frozenset()

    def __contains__(self, worker: LiveWorker) -> bool:
        report = worker.report
        return (
            (not self.names or report.worker in self.names)
            and (self.host is None or report.hostname == self.host)
            and (self.queue is None or self.queue in report.queues)
            and (self.release is None or report.release == self.release)
            and (not self.ids or report.id in self.ids)
        )


@dataclass(slots=True)
class Target:
    """One worker that is told something.

    Args:
        worker: as it was found last.
        connection: a client of its server.
        told: whether somebody listened when it was told.
        gone: whether its report is sealed or closed by now: it has ended.
    """

    worker: LiveWorker
    connection: redis.Redis = field(repr=False)
    told: bool = False
    gone: bool = False

    @property
    def stopping(self) -> bool:
        return self.worker.report.requested_at is not None

    @property
    def words(self) -> str:
        """Which worker it is, and what it is at."""
        report = self.worker.report
        at = "ended" if self.gone else state_of(self.worker)
        return f"{report.worker} on {report.hostname}: {at}"

    def has_followed(self, command: Command) -> bool:
        """Whether it is now what it was told to be; one that has ended or is ending takes no job either."""
        if command is Command.RESUME:
            return not (self.gone or self.stopping or self.worker.report.quiet)
        if command is Command.QUIET:
            return self.gone or self.stopping or self.worker.report.quiet
        return self.gone

    def tell(self, command: Command) -> None:
        """Send it the command, once it is heard: a second request to stop would cut the time of its job.

        Raises:
            redis.exceptions.RedisError: Redis is unreachable.
        """
        if self.told or self.has_followed(command) or self.stopping:
            return
        channel = PUBSUB_CHANNEL_TEMPLATE % self.worker.report.worker
        # Not rq.command.send_command(), which does not say whether anybody listens.
        self.told = bool(self.connection.publish(channel, json.dumps({"command": command})))


def find(servers: Iterable[Journal], selection: Selection) -> tuple[list[Target], list[str]]:
    """The workers that are meant, and which servers were unreachable and why."""
    targets: list[Target] = []
    failures: list[str] = []
    for journal in servers:
        try:
            there = fleet(journal.connection)
        except RedisError as error:
            failures.append(f"{journal}: {error}")
        else:
            targets += [Target(worker, journal.connection) for worker in there if worker in selection]
    return targets, failures


def look_again(targets: Iterable[Target]) -> None:
    """See what has become of them.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    by_connection: dict[int, list[Target]] = {}
    for target in targets:
        by_connection.setdefault(id(target.connection), []).append(target)
    for there in by_connection.values():
        living = {worker.report.id: worker for worker in fleet(there[0].connection)}
        for target in there:
            found = living.get(target.worker.report.id)
            target.gone = found is None
            target.worker = found or target.worker


def stock_workers(connection: redis.Redis, names: Sequence[str]) -> list[str]:
    """Those of these names under which RQ knows a worker.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    return [name for name in names if connection.exists(rq_private.worker_keys(name)[0])]
