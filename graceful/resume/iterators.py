"""Traversals: iteration that can stop after any item and continue there in another process."""

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


class Traversal(Protocol[T_co]):
    """Iteration with positions."""

    kind: str
    about: str
    """What else must be the same in the next run, besides the kind; or empty."""
    slow: bool
    """Whether to check for a shutdown before the next item is fetched, because fetching may take long."""

    def items(self, position: Any) -> Iterator[tuple[T_co, Any]]:
        """Each item, and the position after it.

        Args:
            position: where to begin: after an item, as read from JSON; None for the beginning.

        Raises:
            CursorMismatch: the position no longer exists.
        """

    def encode(self, position: Any) -> Any:
        """Turn a position into JSON."""

    def count(self) -> int | None:
        """How many items there are in all; None if unknown."""


class SequenceTraversal(Generic[T]):
    """Over a sequence, by index; with ``key``, from after the item with the key of the last finished one."""

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
        raise CursorMismatch(f"the last finished item, of key {key!r}, no longer exists")

    def encode(self, position: Any) -> Any:
        return position

    def count(self) -> int | None:
        return len(self.sequence)


class CountedTraversal(Generic[T]):
    """Over any iterable, by count: to continue, finished items are fetched again and dropped."""

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
        raise CursorMismatch(f"the position {position!r} no longer exists, there are only {count} items")

    def encode(self, position: Any) -> Any:
        return position

    def count(self) -> int | None:
        return None


class FileTraversal(Generic[T]):
    """Over the lines of a file, by offset.

    A text file's offset is known only through ``tell``, which is slow: it is called every
    ``LINES_BETWEEN_TELLS`` lines, and lines are counted from there.
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
        # A position is the result of the last tell(), and the number of lines read since.
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
                raise CursorMismatch("the file is shorter than the part that was read before")

    def encode(self, position: Any) -> Any:
        return position

    def count(self) -> int | None:
        return None


def _same(key: Any, saved: Any) -> bool:
    """Whether a key equals the saved one; JSON turns tuples into lists."""
    return bool(key == saved) or (isinstance(key, tuple) and json.loads(json.dumps(key)) == saved)


def file_in(iterable: Any) -> Any:
    """The file that ``iterable`` is or wraps, as Django's ``File`` and ``tempfile``'s do; None if there is none.

    Raises:
        TypeError: it is a file that is not seekable.
    """
    file = iterable if isinstance(iterable, io.IOBase) else getattr(iterable, "file", None)
    if not isinstance(file, io.IOBase) or not hasattr(iterable, "readline"):
        return None
    if not file.seekable():
        raise TypeError(f"{iterable!r} is not seekable; resumable(iter(...)) continues by counting its lines")
    return file


def traversal_of(iterable: Iterable[T], key: Callable[[T], Any] | None) -> Traversal[T]:
    """The traversal of anything but a QuerySet.

    Raises:
        TypeError: it cannot be iterated over again in the same order.
    """
    if isinstance(iterable, (set, frozenset)):
        raise TypeError("a set has another order in each process; pass resumable(sorted(...)) instead")
    if not isinstance(iterable, Iterable):
        hint = "; pass .all() of it" if hasattr(iterable, "get_queryset") else ""
        raise TypeError(f"resumable takes an iterable, got: {iterable!r}{hint}")
    file = file_in(iterable)
    if file is not None:
        if key is not None:
            raise TypeError("a file is traversed by offset; key= is for sequences and other iterables")
        return FileTraversal(file)
    # Indexing into the middle of a deque is O(n).
    if isinstance(iterable, Sequence) and not isinstance(iterable, deque):
        return SequenceTraversal(iterable, key)
    return CountedTraversal(iterable, key)
