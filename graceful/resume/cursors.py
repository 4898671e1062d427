"""What a job saves so that its next run can continue: the cursors of its loops, and states of its own."""

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
"""Field of the job's hash in Redis. RQ keeps fields that it does not know: ``Job.save`` is an HSET."""
STEP = "step"
"""The kind of an entry that is no loop: a function whose result is its position."""


class Store(Protocol):
    """Where the cursors of one job are kept between its runs."""

    def load(self) -> str | None:
        """What was saved last, or None."""

    def save(self, text: str) -> bool:
        """Replace what was saved by ``text``: the job has made progress. Nothing happens if the job was deleted.

        Returns:
            False if that is not possible now; it is retried later.
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
    """How far one loop has got.

    Args:
        name: its name.
        kind: what it iterates over: ``"queryset"``, ``"sequence"``, ``"file"`` or ``"iterable"``; or ``STEP``.
        about: what else a cursor must match, for instance model and ordering.
        saved: position after the last item that an earlier run finished, as JSON; None at the beginning.
        position: position after the last item that this run finished; None if it has finished none.
        done: finished items, including those of earlier runs.
        total: how many items there are in all, if known.
        finished: it ran to its end.
        parent: name of the loop within whose item it runs, or empty.
        running: it has begun in this run, and has not ended.
        done_saved: finished items when it was last saved.
        encode: turns ``position`` into JSON.
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
"""Names of the loops within whose items this code runs, the innermost last; one per thread and per task."""


class Cursors:
    """The cursors of the running job. Loaded when first needed; a job that saves nothing costs nothing.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.used = False
        self.pending = False
        """Whether something changes when an item is finished."""
        self.saved_at = time.monotonic()
        self._dirty = False
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._old: dict[str, Any] = {}
        self._states: dict[str, str] = {}
        self._staged: dict[str, str] = {}

    def begin(self, name: str, kind: str, about: str, encode: Callable[[Any], Any] = _as_it_is) -> Entry:
        """A loop begins, where its saved cursor points.

        Raises:
            ValueError: another loop of this run has the same name.
            CursorMismatch: the cursor saved under this name belongs to another kind of loop.
        """
        with self._lock:
            self._read()
            if name in self._entries:
                raise ValueError(
                    f"two loops or steps of this job are called {name!r}; give each of them a name of its own"
                )
            around = [each for each in _around.get() if each in self._entries and self._entries[each].running]
            entry = Entry(name, kind, about, parent=around[-1] if around else "", encode=encode)
            old = self._old.get(name)
            if old is not None:
                old_loop, new_loop = (
                    _described(old["kind"], old["about"], old["parent"]),
                    _described(kind, about, entry.parent),
                )
                if old_loop != new_loop:
                    raise CursorMismatch(
                        f"{name!r} is now {new_loop}, but what was saved under this name is of {old_loop}; "
                        "give it another name to start over"
                    )
                entry.saved, entry.done, entry.done_saved = old["position"], old["done"], old["done"]
                entry.total, entry.finished = old["total"], old["finished"]
            # A cursor within an item is valid for that item only, including one that an earlier run saved for a loop
            # that does not begin in the item this time.
            self.pending |= bool(around) or any(each["parent"] == name for each in self._old.values())
            entry.running = True
            self._entries[name] = entry
            _around.set((*around, name))
            return entry

    def end(self, name: str, *, finished: bool) -> None:
        """A loop has ended: it is finished, or was left early."""
        with self._lock:
            entry = self._entries[name]
            self._dirty |= finished and not entry.finished
            entry.running, entry.finished = False, finished
        _around.set(tuple(each for each in _around.get() if each != name))

    def item_finished(self, entry: Entry) -> None:
        """Called when an item is finished and something is ``pending``.

        The cursors of loops within the item are dropped: they start over in the next item.
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
            # One that is still running runs in parallel with this one, as in zip().
            if entry.parent == name and not entry.running:
                self._drop_within(child)
                del self._entries[child]
                self._old.pop(child, None)
        for child in [child for child, old in self._old.items() if old["parent"] == name]:
            if child not in self._entries:
                del self._old[child]
                self._drop_within(child)

    def set_state(self, name: str, state: Any) -> None:
        """Set a state of the job's own.

        Raises:
            TypeError, ValueError: JSON cannot hold it.
        """
        text = json.dumps(state)
        with self._lock:
            self._read()
            if self.in_loop:
                # It belongs to the current item: saved before that is finished, it would count the item twice.
                self._staged[name] = text
                self.pending = True
            else:
                self._dirty |= self._states.get(name) != text
                self._states[name] = text
                self._staged.pop(name, None)

    def state(self, name: str, default: Any) -> Any:
        """The state that was last set under ``name``, in this run or an earlier one."""
        with self._lock:
            self._read()
            text = self._staged.get(name, self._states.get(name))
        return default if text is None else json.loads(text)

    @property
    def in_loop(self) -> bool:
        """Whether this code runs within an item of a loop."""
        inside = [self._entries[name] for name in _around.get() if name in self._entries]
        return any(entry.running and entry.kind != STEP for entry in inside)

    def save(self) -> None:
        """Save changes. Without a change nothing is saved, since saving means progress."""
        with self._lock:
            self.saved_at = time.monotonic()
            if not self._dirty and all(entry.done == entry.done_saved for entry in self._entries.values()):
                return
            loops = {name: entry.as_json() for name, entry in self._entries.items()}
            counts = {name: loop["done"] for name, loop in loops.items()}
            # Loops of the previous run that this one has not reached yet are kept.
            loops = {**{name: old for name, old in self._old.items() if name not in loops}, **loops}
            states = {name: json.loads(text) for name, text in self._states.items()}
            text = json.dumps({"version": VERSION, "loops": loops, "states": states})
            if self.store.save(text):
                self._dirty = False
                for name, done in counts.items():
                    self._entries[name].done_saved = done

    def clear(self) -> None:
        """The job has succeeded: everything is removed, so that a repeating job starts over."""
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
        CursorMismatch: not in the format that this version reads.
    """
    if text is None:
        return {"loops": {}, "states": {}}
    try:
        saved = json.loads(text)
        if saved["version"] == VERSION:
            return {"loops": saved["loops"], "states": saved["states"]}
    except (ValueError, KeyError, TypeError):
        pass
    raise CursorMismatch(f"the saved cursors are not in the format that this version reads: {text[:100]!r}")


def as_json(value: object, complaint: str) -> str:
    """A value of the job's, as JSON.

    Args:
        value: what is to be saved.
        complaint: how the error begins if JSON cannot represent it.

    Raises:
        TypeError, ValueError: as ``json.dumps``.
    """
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{complaint}: {value!r:.200} ({error})") from error
