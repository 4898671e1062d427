"""Reading untrusted JSON: every field is validated, and an error names the invalid one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from graceful.core.text import cut
from graceful.exceptions import UnreadableReport

MOST_CHARACTERS = 1024 * 1024
"""Of one JSON text."""
NAME_LIMIT = 8 * 1024
"""Characters that a name of a worker, queue or machine may have."""
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)
"""Times outside are invalid: no clock shows them, and those at the ends of the calendar have no local time."""

E = TypeVar("E", bound=StrEnum)


def parse(text: str | bytes) -> dict[str, Any]:
    """An untrusted JSON object, whose fields :class:`Fields` reads.

    Raises:
        UnreadableReport: no JSON object, or too large.
    """
    if len(text) > MOST_CHARACTERS:
        raise UnreadableReport(f"{len(text)} characters, at most {MOST_CHARACTERS} are read")
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableReport(f"not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise UnreadableReport(f"a JSON object was expected, got: {type(parsed).__name__}")
    return parsed


def storable(text: str) -> str:
    """Text that every database accepts: PostgreSQL stores no NUL, and a lone surrogate is not UTF-8."""
    return cut(text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8"))


def _name(where: str, value: object) -> str:
    # A lone surrogate is not UTF-8, so no Redis key contains it.
    if not isinstance(value, str) or not 0 < len(value) <= NAME_LIMIT or storable(value) != value:
        raise UnreadableReport(f"{where} must be a name of 1 to {NAME_LIMIT} characters, got: {value!r}"[:300])
    return value


class Fields:
    """Reads one JSON object field by field; its errors name the invalid field."""

    def __init__(self, parsed: object, where: str) -> None:
        if not isinstance(parsed, Mapping):
            raise UnreadableReport(f"{where} must be an object, got: {type(parsed).__name__}")
        self.parsed = parsed
        self.where = where

    def _get(self, key: str, kinds: tuple[type, ...], expected: str) -> Any:
        value = self.parsed.get(key)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise UnreadableReport(f"{self.where}{key} must be {expected}, got: {value!r}"[:300])
        return value

    def text(self, key: str) -> str:
        return storable(self._get(key, (str,), "a string"))

    def name(self, key: str) -> str:
        """A name of something in Redis, which is rejected rather than altered."""
        value = self._get(key, (str,), "a string")
        return _name(f"{self.where}{key}", value)

    def names(self, key: str) -> tuple[str, ...]:
        # A worker may listen to any number of queues; the size of the whole is bounded.
        found: list[object] = self._get(key, (list,), "a list")
        return tuple(_name(f"{self.where}{key}", value) for value in found)

    def text_or_none(self, key: str) -> str | None:
        return None if self.parsed.get(key) is None else self.text(key)

    def whole(self, key: str) -> int:
        value: int = self._get(key, (int,), "a whole number")
        if not -(2**31) <= value < 2**31:
            raise UnreadableReport(f"{self.where}{key} must fit 32 bits, got: {value}"[:300])
        return value

    def whole_or_none(self, key: str) -> int | None:
        return None if self.parsed.get(key) is None else self.whole(key)

    def count_or_none(self, key: str) -> int | None:
        """A number of items, which may be larger than 32 bits."""
        if self.parsed.get(key) is None:
            return None
        value: int = self._get(key, (int,), "a whole number")
        if not 0 <= value < 2**53:
            raise UnreadableReport(f"{self.where}{key} must be from 0 to 2^53, got: {value!s:.80}")
        return value

    def seconds_or_none(self, key: str) -> float | None:
        if self.parsed.get(key) is None:
            return None
        value = self._get(key, (int, float), "a number of seconds")
        if not abs(value) < 1e12:  # Before float(), which raises OverflowError for an int of 400 digits.
            raise UnreadableReport(f"{self.where}{key} must be a finite number of seconds, got: {value}"[:300])
        return float(value)

    def moment_or_none(self, key: str) -> datetime | None:
        if self.parsed.get(key) is None:
            return None
        try:
            value = datetime.fromisoformat(self.text(key))
            value = (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise UnreadableReport(f"{self.where}{key} must be a time in ISO 8601: {error}") from error
        if not EARLIEST <= value < LATEST:
            raise UnreadableReport(f"{self.where}{key} must be between {EARLIEST.year} and {LATEST.year}, got: {value}")
        return value

    def moment(self, key: str) -> datetime:
        value = self.moment_or_none(key)
        if value is None:
            raise UnreadableReport(f"{self.where}{key} must be a time in ISO 8601, got: None")
        return value

    def word(self, key: str, words: type[E]) -> E:
        value = self.parsed.get(key)
        try:
            return words(value)  # type: ignore[arg-type]
        except ValueError as error:
            known = ", ".join(words)
            raise UnreadableReport(f"{self.where}{key} must be one of {known}, got: {value!r}"[:300]) from error

    def word_or_none(self, key: str, words: type[E]) -> E | None:
        return None if self.parsed.get(key) is None else self.word(key, words)

    def rows(self, key: str) -> list[object]:
        value: list[object] = self._get(key, (list,), "a list")
        if len(value) > 1000:
            raise UnreadableReport(f"{self.where}{key} must have at most 1000 items, got: {len(value)}")
        return value
