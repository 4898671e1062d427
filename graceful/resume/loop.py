"""Loops that a shutdown can end between two items, and that the job's next run continues."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from django.db.models import QuerySet

from graceful.jobs import interruption
from graceful.resume.cursors import as_json
from graceful.resume.iterators import Traversal, traversal_of
from graceful.resume.querysets import CHUNK_SIZE, QuerySetTraversal
from graceful.resume.transactions import must_not_be_open

T = TypeVar("T")
SAVE_EVERY = 5.0


def resumable(
    iterable: Iterable[T],
    *,
    name: str = "default",
    order_by: str | Sequence[str] | None = None,
    key: Callable[[T], Any] | None = None,
    chunk_size: int = CHUNK_SIZE,
    save_every: float = SAVE_EVERY,
    total: int | None = None,
    count: bool = True,
    max_runtime: float | None = None,
) -> Iterator[T]:
    """Iterate, so that a job that a shutdown interrupts continues where it stopped.

    An item is finished when the next one is requested. Once a shutdown is requested, the job is interrupted between two
    items, with the cursor saved; the next run begins after the last finished item. So no item is lost or skipped, and
    at most the one in progress is repeated. A finished loop yields nothing in a later run. Outside a worker it only
    iterates.

    The cursor belongs to the job's id: it also applies when RQ retries a failed job, or when somebody requeues it. It
    is removed when the job succeeds.

    Args:
        iterable: a QuerySet, by its ``order_by`` or else by primary key (``Meta.ordering`` is ignored), in chunks; a
            sequence, by index; a file, by offset; anything else by count: the next run fetches finished items again
            and drops them.
        name: distinguishes the loops of one job. A loop that runs within an item of another belongs to that item.
        order_by: for a QuerySet: names of columns that are unique together and never NULL, ``"-created_at,id"``. They
            should not change while the job runs.
        key: for sequences and other iterables: an item's identity, as JSON. The next run then begins after the item
            with that key, even if others were added or removed before it.
        chunk_size: for a QuerySet: rows per query.
        save_every: seconds between two saves of the cursor: the most that a SIGKILL can cost.
        total: how many items there are, for the progress.
        count: for a QuerySet: count it for the progress, once per job, if ``total`` is not given.
        max_runtime: seconds after which the job gives others a turn: between two items it goes to the end of its queue,
            and continues when it is its turn again. Counted from the start of the job in this run, in which at least
            one item is finished. It is no interruption, and not done where a job fails when it is interrupted.

    Raises:
        ValueError, TypeError: the iterable cannot be resumed (at the call); or two loops of this job have the same
            name (at the first item).
        CursorMismatch: at the first item: the saved cursor does not belong to this loop, since the job's code or its
            data has changed. A loop with another name starts over.
        RuntimeError: at the first item: a transaction of a database is open, whose roll-back would lose items.
        JobInterrupted: a shutdown was requested; let it propagate. So too :class:`graceful.exceptions.JobYielded`, of
            ``max_runtime``.
    """
    if save_every < 0:
        raise ValueError(f"save_every must not be negative, got: {save_every}")
    if max_runtime is not None and not max_runtime > 0:
        raise ValueError(f"max_runtime must be more than 0 seconds, or None, got: {max_runtime!r}")
    traversal: Traversal[T]
    if isinstance(iterable, QuerySet):
        if key is not None:
            raise TypeError("a QuerySet is traversed by its columns: order_by=, not key=")
        traversal = QuerySetTraversal(iterable, order_by, chunk_size)
    else:
        if order_by is not None:
            raise TypeError("order_by= is for QuerySets; sort other iterables first")
        traversal = traversal_of(iterable, key)
    return _hand_out(traversal, name, save_every, total, count, max_runtime or math.inf)


def _hand_out(
    traversal: Traversal[T], name: str, save_every: float, total: int | None, count: bool, max_runtime: float
) -> Iterator[T]:
    guard = interruption.guard
    if guard is None or guard.elsewhere:
        for item, _ in traversal.items(None):
            yield item
        return
    must_not_be_open("a resumable loop")
    cursors = guard.cursors
    entry = cursors.begin(name, traversal.kind, traversal.about, traversal.encode)
    finished = False
    done_before = entry.done
    try:
        if not entry.finished:
            if total is not None:
                entry.total = total
            elif entry.total is None and count:
                entry.total = traversal.count()
            clock = time.monotonic
            check_every = min(guard.check_every, save_every)
            check_at = 0.0
            if traversal.slow:
                guard.check()
            for item, position in traversal.items(entry.saved):
                # Checked when the next item is there, so that a loop is not interrupted after its last item; and the
                # clock is read first, since that is the cheapest check.
                if clock() >= check_at:
                    if check_at == 0.0:
                        json.dumps(traversal.encode(position))  # Its errors should show now, not at a shutdown.
                    if not traversal.slow:
                        guard.check()
                        if entry.done > done_before:
                            guard.check_runtime(max_runtime)
                    now = clock()
                    if now - cursors.saved_at >= save_every:
                        guard.save_cursors()
                    check_at = now + check_every
                yield item
                entry.position = position
                entry.done += 1
                if cursors.pending:
                    cursors.item_finished(entry)
                if traversal.slow:
                    guard.check()
                    guard.check_runtime(max_runtime)
        finished = True
    finally:
        cursors.end(name, finished=finished)
    if not cursors.in_loop:
        guard.save_cursors()


def checkpoint(state: Any, *, name: str = "default") -> None:
    """Save the progress of a job that is not a simple loop; interrupt it here if a shutdown was requested.

    Within a ``resumable`` loop the state is saved together with the loop's cursor when the item is finished, so that
    the two always match. Elsewhere it is saved at once: one Redis command.

    Args:
        state: anything that JSON can represent; tuples come back as lists and keys as strings.
        name: distinguishes several states of one job.

    Raises:
        TypeError, ValueError: JSON cannot represent the state.
        RuntimeError: a transaction of a database is open outside a ``resumable`` loop.
        JobInterrupted: a shutdown was requested; let it propagate.
    """
    as_json(state, "checkpoint takes a state that JSON can represent, got")
    guard = interruption.guard
    if guard is None or guard.elsewhere:
        return
    guard.cursors.set_state(name, state)
    if guard.cursors.in_loop:
        return
    must_not_be_open("checkpoint()")
    guard.save_cursors()
    guard.check()


def resume_state(*, name: str = "default", default: Any = None) -> Any:
    """The state that the job last saved with :func:`checkpoint`, in this run or an earlier one.

    Args:
        name: as given to ``checkpoint``.
        default: returned if nothing was saved, and always outside a worker.
    """
    guard = interruption.guard
    if guard is None or guard.elsewhere:
        return default
    return guard.cursors.state(name, default)
