"""Resumable jobs that tests enqueue. Each item goes to a list in Redis, so that tests see which ones were worked at."""

from __future__ import annotations

import logging
import time

from django.contrib.auth.models import Group

from graceful.jobs import checkpoint, on_interrupt, resumable, resume_state
from tests.support.jobs import current_job

ITEMS = "tests:items:"
"""List, by job id: the items that were worked at, in order."""
QUICK = "tests:quick"
"""While this key is there, no item is slow."""
FAILED = "tests:failed"
"""Is there once a job has failed on purpose."""


def note(item: int) -> None:
    """Write down that the current job works at an item."""
    job = current_job()
    job.connection.rpush(ITEMS + job.id, item)


def over_groups(seconds: float, slow: int | None = None, save_every: float = 5.0, failing: int | None = None) -> None:
    """Works at each group for so many seconds; at ``slow`` for 30, and at ``failing`` it fails, once.

    Raises:
        ValueError: on purpose.
    """
    connection = current_job().connection
    for group in resumable(Group.objects.all(), chunk_size=50, save_every=save_every):
        note(group.pk)
        if group.pk == failing and connection.set(FAILED, 1, nx=True):
            raise ValueError("on purpose")
        end = time.monotonic() + (30 if group.pk == slow and not connection.exists(QUICK) else seconds)
        while time.monotonic() < end:
            time.sleep(min(0.01, seconds))


@on_interrupt("fail")
def not_twice(seconds: float) -> None:
    """As above, but it fails when it is interrupted."""
    over_groups(seconds)


def two_loops(more: int, seconds: float) -> int:
    """A quick loop over all groups, then a slow one over numbers; returns the sum of the numbers."""
    for group in resumable(Group.objects.order_by("pk"), name="groups"):
        note(group.pk)
    total: int = resume_state(default=0)
    for number in resumable(range(more), name="numbers"):
        note(number)
        total += number
        checkpoint(total)
        time.sleep(seconds)
    return total


def slow_at(item: int, total: int) -> None:
    """Works at numbers, and at one of them for 30 seconds, in which it logs now and then."""
    for number in resumable(range(total), name="numbers", save_every=0):
        if number == item:
            note(number)
            for second in range(300):
                logging.getLogger("rq.worker").info("still at number %d, look %d", number, second)
                time.sleep(0.1)


def in_turns(name: str, total: int, max_runtime: float) -> None:
    """Works at numbers, each for 20 ms, and lets other jobs run after its ``max_runtime``; notes the turn it was in."""
    connection = current_job().connection
    turn = connection.incr("tests:turns")
    for _ in resumable(range(total), max_runtime=max_runtime):
        connection.rpush("tests:order", f"{name}:{turn}")
        time.sleep(0.02)


def leaves_slowly(release: str) -> None:
    """Lets other jobs run at once, and takes its time for that: until there is something in this list."""
    job = current_job()
    try:
        for _ in resumable(range(3), max_runtime=0.001):
            time.sleep(0.01)
    finally:
        job.connection.set("tests:leaving", job.id)
        while not job.connection.lpop(release):
            time.sleep(0.01)
