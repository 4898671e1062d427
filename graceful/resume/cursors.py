"""What a job notes down so that its next run can go on: how far its loops are, and states of its own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from graceful.exceptions import CursorMismatch

VERSION = 1
FIELD = "graceful_resume"
"""Field of the job's hash in Redis. RQ leaves fields alone that it does not know: ``Job.save`` is an HSET."""


class Store(Protocol):
    """Where the notes of one job are kept from one run to the next."""

    def load(self) -> str | None:
        """What was saved last, or None."""

    def save(self, text: str) -> bool:
        """Keep ``text`` in place of what was saved before: the job got on. Nothing happens if it was deleted.

        Returns:
            False if that was not possible just now; it is tried again later.
        """

    def clear(self) -> None:
        """Forget what was saved."""


class MemoryStore:
    """A :class:`Store` that lives as long as this object; for tests."""

    def __init__(self) -> None:
        self.text: str | None = None

    def load(self) -> str | None:
        return self.text

    def save(self, text: str) -> bool:
        self.text = text
        return True

    def clear(self) -> None:
        self.text = None


def _as_it_is(position: Any) -> Any:
    return position


@dataclass(slots=True, eq=False)
class Entry:
    """How far one loop is.

    Args:
        name: its name.
        kind: what it goes over: ``"queryset"``, ``"sequence"``, ``"file"`` or ``"iterable"``.
        about: what a cursor must agree on besides, for instance model and ordering.
        saved: behind the last item that an earlier run finished, as JSON; None at the beginning.
        position: behind the last item that this run finished; None where it has finished none.
        done: finished items, those of earlier runs included.
        total: how many there are in all, if that is known.
        finished: it came to its end.
        parent: name of the loop in whose item it runs, or empty.
        running: it has begun in this run, and is not over.
        done_saved: finished items when it was saved last.
        encode: makes JSON of ``position``.
    """

    name: str
    kind: str
    about: str
    saved: Any = None
    position: Any = None
    done: int = 0
    total: int | None = None
    finished: bool = False
    parent: str = ""
    running: bool = False
    done_saved: int = 0
    encode: Callable[[Any], Any] = field(default=_as_it_is, repr=False)

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "about": self.about,
            "position": self.saved if self.position is None else self.encode(self.position),
            "done": self.done,
            "total": self.total,
            "finished": self.finished,
            "parent": self.parent,
        }


_around: ContextVar[tuple[str, ...]] = ContextVar("graceful_loops", default=())
"""Names of the loops in whose items this code runs, the innermost last; each thread and each task has its own."""


class Cursors:
    """The notes of the job in hand. Read when they are first needed; a job that notes nothing costs nothing.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.used = False
        self.pending = False
        """Whether there is something that changes when an item is finished."""
        self.saved_at = time.monotonic()
        self._dirty = False
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._old: dict[str, Any] = {}
        self._states: dict[str, str] = {}
        self._staged: dict[str, str] = {}

    def begin(self, name: str, kind: str, about: str, encode: Callable[[Any], Any] = _as_it_is) -> Entry:
        """A loop begins: where does it go on?

        Raises:
            ValueError: another loop of this run has the same name.
            CursorMismatch: what was saved under this name is of another kind of loop.
        """
        with self._lock:
            self._read()
            if name in self._entries:
                raise ValueError(f"two loops of this job are called {name!r}; give each of them a name= of its own")
            around = [each for each in _around.get() if each in self._entries and self._entries[each].running]
            entry = Entry(name, kind, about, parent=around[-1] if around else "", encode=encode)
            old = self._old.get(name)
            if old is not None:
                there, here = (
                    _described(old["kind"], old["about"], old["parent"]),
                    _described(kind, about, entry.parent),
                )
                if there != here:
                    raise CursorMismatch(
                        f"loop {name!r} is now over {here}, but its saved cursor is of {there}; "
                        "to begin anew give the loop another name="
                    )
                entry.saved, entry.done, entry.done_saved = old["position"], old["done"], old["done"]
                entry.total, entry.finished = old["total"], old["finished"]
            # A cursor within an item holds for that item only, also one that was saved by an earlier run and is of a
            # loop that does not begin in the item this time.
            self.pending |= bool(around) or any(each["parent"] == name for each in self._old.values())
            entry.running = True
            self._entries[name] = entry
            _around.set((*around, name))
            return entry

    def end(self, name: str, *, finished: bool) -> None:
        """A loop is over: it came to its end, or was left before it."""
        with self._lock:
            entry = self._entries[name]
            self._dirty |= finished and not entry.finished
            entry.running, entry.finished = False, finished
        _around.set(tuple(each for each in _around.get() if each != name))

    def item_finished(self, entry: Entry) -> None:
        """To be called when an item is finished and something is ``pending``.

        What ran within the item belongs to the past: the next item begins it anew.
        """
        with self._lock:
            self._states.update(self._staged)
            self._staged.clear()
            self._drop_within(entry.name)
            within = {
                *(each.parent for each in self._entries.values()),
                *(each["parent"] for each in self._old.values()),
            }
            self.pending = within != {""}

    def _drop_within(self, name: str) -> None:
        for child, entry in list(self._entries.items()):
            # One that still runs does so side by side with this one, as in zip().
            if entry.parent == name and not entry.running:
                self._drop_within(child)
                del self._entries[child]
                self._old.pop(child, None)
        for child in [child for child, old in self._old.items() if old["parent"] == name]:
            if child not in self._entries:
                del self._old[child]
                self._drop_within(child)

    def note(self, name: str, state: Any) -> None:
        """Note a state of the job's own.

        Raises:
            TypeError, ValueError: JSON cannot hold it.
        """
        text = json.dumps(state)
        with self._lock:
            self._read()
            if self.in_loop:
                # It goes with the item in hand: saved before that is finished, it would count the item twice.
                self._staged[name] = text
                self.pending = True
            else:
                self._dirty |= self._states.get(name) != text
                self._states[name] = text
                self._staged.pop(name, None)

    def noted(self, name: str, default: Any) -> Any:
        """The state that was noted last under ``name``, in this run or in one before."""
        with self._lock:
            self._read()
            text = self._staged.get(name, self._states.get(name))
        return default if text is None else json.loads(text)

    @property
    def in_loop(self) -> bool:
        """Whether this code runs in an item of a loop."""
        return any(name in self._entries and self._entries[name].running for name in _around.get())

    def save(self) -> None:
        """Save what has changed; nothing if nothing has, since a saving says that the job got on."""
        with self._lock:
            self.saved_at = time.monotonic()
            if not self._dirty and all(entry.done == entry.done_saved for entry in self._entries.values()):
                return
            loops = {name: entry.as_json() for name, entry in self._entries.items()}
            counts = {name: loop["done"] for name, loop in loops.items()}
            # What the run before had noted, and this one has not come to yet, may come yet.
            loops = {**{name: old for name, old in self._old.items() if name not in loops}, **loops}
            states = {name: json.loads(text) for name, text in self._states.items()}
            text = json.dumps({"version": VERSION, "loops": loops, "states": states})
            if self.store.save(text):
                self._dirty = False
                for name, done in counts.items():
                    self._entries[name].done_saved = done

    def clear(self) -> None:
        """The job has succeeded: nothing is kept, so that a job that repeats starts over."""
        if self.used:
            self.store.clear()

    def _read(self) -> None:
        if self.used:
            return
        saved = read(self.store.load())
        self._old = dict(saved["loops"])
        self._states = {name: json.dumps(state) for name, state in saved["states"].items()}
        self.used = True


def _described(kind: str, about: str, parent: str) -> str:
    words = f"a {kind} of {about}" if about else f"a {kind}"
    return f"{words} within loop {parent!r}" if parent else words


def read(text: str | bytes | None) -> Mapping[str, Any]:
    """The loops and states in a saved text.

    Raises:
        CursorMismatch: it is not of a form that this version reads.
    """
    if text is None:
        return {"loops": {}, "states": {}}
    try:
        saved = json.loads(text)
        if saved["version"] == VERSION:
            return {"loops": saved["loops"], "states": saved["states"]}
    except (ValueError, KeyError, TypeError):
        pass
    raise CursorMismatch(f"the saved cursors are not of a form that this version reads: {text[:100]!r}")
