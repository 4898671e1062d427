"""Loops that a shutdown can end between two items, and that the job's next run continues."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from django.db.models import QuerySet

from graceful.jobs import interruption
from graceful.resume.iterators import Walk, walk_over
from graceful.resume.querysets import CHUNK_SIZE, QuerySetWalk

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
) -> Iterator[T]:
    """Hand out the items one after the other, so that a job that a shutdown interrupts goes on where it was.

    An item is finished when the next one is asked for. As soon as the worker is asked to stop, the job is interrupted
    between two items, with the cursor saved; the next run begins behind the last finished item. So no item is lost
    or skipped, and at most the one in progress is repeated. A loop that came to its end hands out nothing in a later
    run. Outside a worker it only iterates.

    The cursor belongs to the job's id: it also holds when RQ retries a job that failed, or when somebody requeues it.
    It goes when the job succeeds.

    Args:
        iterable: a QuerySet, gone over by its ``order_by`` or else by primary key (``Meta.ordering`` is not followed),
            in chunks; a sequence, by index; a file, by offset; anything else by count, which means that the next run
            fetches finished items again and drops them.
        name: tells the loops of one job apart. A loop that runs within an item of another belongs to that item.
        order_by: for a QuerySet: names of columns that are unique together and never NULL, ``"-created_at,id"``. They
            should not change while the job runs.
        key: for sequences and other iterables: what an item is known by, as JSON. The next run then begins behind the
            item with that key, also if others were added or removed before it.
        chunk_size: for a QuerySet: rows a query.
        save_every: seconds between two savings of the cursor, which is what a SIGKILL can cost.
        total: how many items there are, for the progress.
        count: for a QuerySet: count it for the progress, once a job, where ``total`` is not given.

    Raises:
        ValueError, TypeError: the iterable cannot be resumed, said at the call; or, at the first item, two loops of
            this job have the same name.
        CursorMismatch: at the first item, the saved cursor is not of this loop, since the job's code or what it goes
            over has changed. A loop with another name begins anew.
        JobInterrupted: the worker is to stop; let it pass.
    """
    if save_every < 0:
        raise ValueError(f"save_every must not be negative, got: {save_every}")
    walk: Walk[T]
    if isinstance(iterable, QuerySet):
        if key is not None:
            raise TypeError("a QuerySet is gone over by its columns: order_by=, not key=")
        walk = QuerySetWalk(iterable, order_by, chunk_size)
    else:
        if order_by is not None:
            raise TypeError("order_by= is for QuerySets; sort other things before")
        walk = walk_over(iterable, key)
    return _hand_out(walk, name, save_every, total, count)


def _hand_out(walk: Walk[T], name: str, save_every: float, total: int | None, count: bool) -> Iterator[T]:
    guard = interruption.guard
    if guard is None or guard.elsewhere:
        for item, _ in walk.items(None):
            yield item
        return
    notebook = guard.notebook
    entry = notebook.begin(name, walk.kind, walk.about, walk.encode)
    finished = False
    try:
        if not entry.finished:
            if total is not None:
                entry.total = total
            elif entry.total is None and count:
                entry.total = walk.count()
            clock = time.monotonic
            look_every = min(guard.look_every, save_every)
            look_at = 0.0
            if walk.slow:
                guard.look()
            for item, position in walk.items(entry.saved):
                # Looked for when the next item is there, so that a loop behind its last item is not interrupted any
                # more; and the clock is asked before, since it is the cheapest to ask.
                if clock() >= look_at:
                    if look_at == 0.0:
                        json.dumps(walk.encode(position))  # Its errors are better heard of now than in a shutdown.
                    if not walk.slow:
                        guard.look()
                    now = clock()
                    if now - notebook.saved_at >= save_every:
                        guard.save_notes()
                    look_at = now + look_every
                yield item
                entry.position = position
                entry.done += 1
                if notebook.pending:
                    notebook.item_finished(entry)
                if walk.slow:
                    guard.look()
        finished = True
    finally:
        notebook.end(name, finished=finished)
    if not notebook.in_loop:
        guard.save_notes()


def checkpoint(state: Any, *, name: str = "default") -> None:
    """Save how far a job is that is no simple loop; interrupt it here if the worker is to stop.

    Within a ``resumable`` loop the state is saved together with the loop's cursor when the item is finished, so that
    the two always fit together. ThreadJobs it is saved at once: one Redis command.

    Args:
        state: anything that JSON can hold; it comes back as JSON has it, tuples as lists and keys as strings.
        name: tells several states of one job apart.

    Raises:
        TypeError, ValueError: JSON cannot hold the state.
        JobInterrupted: the worker is to stop; let it pass.
    """
    try:
        json.dumps(state)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"checkpoint takes a state that JSON can hold, got: {state!r:.200} ({error})") from error
    guard = interruption.guard
    if guard is None or guard.elsewhere:
        return
    guard.notebook.note(name, state)
    if guard.notebook.in_loop:
        return
    guard.save_notes()
    guard.look()


def resume_state(*, name: str = "default", default: Any = None) -> Any:
    """The state that the job saved last with :func:`checkpoint`, in this run or in one before.

    Args:
        name: as given to ``checkpoint``.
        default: returned where nothing was saved; always so outside a worker.
    """
    guard = interruption.guard
    if guard is None or guard.elsewhere:
        return default
    return guard.notebook.noted(name, default)
