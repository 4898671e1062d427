"""Ways of going over things so that one can stop behind any item and go on there in another process."""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from graceful.exceptions import CursorMismatch

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
LINES_BETWEEN_TELLS = 1000


class Walk(Protocol[T_co]):
    """A way over something."""

    kind: str
    about: str
    """What must be the same in the next run, besides the kind; or empty."""
    slow: bool
    """Whether a shutdown is looked for before the next item is fetched, because that may take its time."""

    def items(self, position: Any) -> Iterator[tuple[T_co, Any]]:
        """Each item, and the position behind it.

        Args:
            position: where to begin: behind an item, as it came out of JSON; None for the beginning.

        Raises:
            CursorMismatch: there is no such position.
        """

    def encode(self, position: Any) -> Any:
        """Make JSON of a position."""

    def count(self) -> int | None:
        """How many items there are in all; None where that is not known."""


class SequenceWalk(Generic[T]):
    """Over a sequence, by index; with ``key``, behind the item that has the key of the last finished one."""

    kind = "sequence"
    about = ""
    slow = False

    def __init__(self, sequence: Sequence[T], key: Callable[[T], Any] | None) -> None:
        self.sequence = sequence
        self.key = key

    def items(self, position: Any) -> Iterator[tuple[T, Any]]:
        index = 0 if position is None else self._index(position)
        while index < len(self.sequence):
            item = self.sequence[index]
            index += 1
            yield item, index if self.key is None else [index, self.key(item)]

    def _index(self, position: Any) -> int:
        if self.key is None:
            if not isinstance(position, int):
                raise CursorMismatch("the cursor was saved with a key=, and the loop has none now")
            if position > len(self.sequence):
                raise CursorMismatch(f"{position} items were finished, but there are only {len(self.sequence)} now")
            return position
        if isinstance(position, int):
            raise CursorMismatch("the cursor was saved without a key=, and the loop has one now")
        index, key = position
        if index <= len(self.sequence) and _same(self.key(self.sequence[index - 1]), key):
            return int(index)
        for at, item in enumerate(self.sequence, start=1):
            if _same(self.key(item), key):
                return at
        raise CursorMismatch(f"the last finished item, of key {key!r}, is not there any more")

    def encode(self, position: Any) -> Any:
        return position

    def count(self) -> int | None:
        return len(self.sequence)


class CountedWalk(Generic[T]):
    """Over any iterable, by count: to go on, finished items are fetched once more and dropped."""

    kind = "iterable"
    about = ""
    slow = True

    def __init__(self, iterable: Iterable[T], key: Callable[[T], Any] | None) -> None:
        self.iterable = iterable
        self.key = key

    def items(self, position: Any) -> Iterator[tuple[T, Any]]:
        rest = iter(self.iterable)
        count = 0
        if position is not None:
            count = self._skip(rest, position)
        for count, item in enumerate(rest, start=count + 1):  # noqa: B020 - the count goes on
            yield item, count if self.key is None else [count, self.key(item)]

    def _skip(self, rest: Iterator[T], position: Any) -> int:
        if isinstance(position, int) == (self.key is not None):
            raise CursorMismatch("the cursor was saved with a key= and the loop has none now, or the other way round")
        count = 0
        for count, item in enumerate(rest, start=1):
            if count == position if self.key is None else _same(self.key(item), position[1]):
                return count
        raise CursorMismatch(f"the position {position!r} is not there any more, only {count} items are")

    def encode(self, position: Any) -> Any:
        return position

    def count(self) -> int | None:
        return None


class FileWalk(Generic[T]):
    """Over the lines of a file, by offset.

    A text file's offset is known only through ``tell``, which is slow: it is asked for now and then, and lines are
    counted from there.
    """

    kind = "file"
    slow = False

    def __init__(self, file: Any) -> None:
        self.file = file
        self.about = "text" if isinstance(file, io.TextIOBase) else "bytes"

    def items(self, position: Any) -> Iterator[tuple[T, Any]]:
        file = self.file
        if position is not None:
            self._go_to(*position)
        # A position is the place where tell() was asked last, and the lines read since.
        place, lines = file.tell(), 0
        readline = file.readline
        while line := readline():
            lines += 1
            yield line, (place, lines)
            if lines >= LINES_BETWEEN_TELLS:
                place, lines = file.tell(), 0

    def _go_to(self, place: int, lines: int) -> None:
        self.file.seek(place)
        for _ in range(lines):
            if not self.file.readline():
                raise CursorMismatch("the file is shorter than what was read of it before")

    def encode(self, position: Any) -> Any:
        return position

    def count(self) -> int | None:
        return None


def _same(key: Any, saved: Any) -> bool:
    """Whether a key is the one that was saved; JSON makes lists of tuples."""
    return bool(key == saved) or (isinstance(key, tuple) and json.loads(json.dumps(key)) == saved)


def file_in(iterable: Any) -> Any:
    """The file that ``iterable`` is or wraps, as Django's ``File`` and ``tempfile``'s do; None if it is none.

    Raises:
        TypeError: it is a file that cannot be positioned.
    """
    file = iterable if isinstance(iterable, io.IOBase) else getattr(iterable, "file", None)
    if not isinstance(file, io.IOBase) or not hasattr(iterable, "readline"):
        return None
    if not file.seekable():
        raise TypeError(f"{iterable!r} cannot be positioned; resumable(iter(...)) goes on by counting its lines")
    return file


def walk_over(iterable: Iterable[T], key: Callable[[T], Any] | None) -> Walk[T]:
    """The way over anything that is no QuerySet.

    Raises:
        TypeError: it cannot be gone over again in the same order.
    """
    if isinstance(iterable, (set, frozenset)):
        raise TypeError("a set has another order in each process; pass resumable(sorted(...)) instead")
    if not isinstance(iterable, Iterable):
        hint = "; pass .all() of it" if hasattr(iterable, "get_queryset") else ""
        raise TypeError(f"resumable goes over an iterable, got: {iterable!r}{hint}")
    file = file_in(iterable)
    if file is not None:
        if key is not None:
            raise TypeError("a file is gone over by offset; key= is for sequences and other iterables")
        return FileWalk(file)
    # An index in the middle of a deque takes as long as the deque is.
    if isinstance(iterable, Sequence) and not isinstance(iterable, deque):
        return SequenceWalk(iterable, key)
    return CountedWalk(iterable, key)
