"""Values of database columns as JSON, and back."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable
from typing import Any

from django.db.models import Field

_PLAIN = (bool, int, float, str)
# Subclasses first: a datetime is a date too.
_WRITERS: tuple[tuple[type, str, Callable[[Any], str]], ...] = (
    (uuid.UUID, "uuid", str),
    (decimal.Decimal, "decimal", str),
    (datetime.datetime, "datetime", datetime.datetime.isoformat),
    (datetime.date, "date", datetime.date.isoformat),
    (datetime.time, "time", datetime.time.isoformat),
    (datetime.timedelta, "duration", lambda value: f"{value.days} {value.seconds} {value.microseconds}"),
    (bytes, "bytes", bytes.hex),
)
_READERS: dict[str, Callable[[str], Any]] = {
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "duration": lambda text: datetime.timedelta(*map(int, text.split())),
    "bytes": bytes.fromhex,
}


def encode(field: Field[Any, Any], value: Any) -> Any:
    """A column's value as JSON.

    Raises:
        TypeError: the column's database values are of a type that has no JSON form here.
    """
    plain = field.get_prep_value(value)
    if isinstance(plain, _PLAIN):
        return plain
    for kind, name, write in _WRITERS:
        if isinstance(plain, kind):
            return {name: write(plain)}
    raise TypeError(f"{field}: a cursor cannot hold a {type(plain).__name__}")


def decode(field: Field[Any, Any], saved: Any) -> Any:
    """The inverse of :func:`encode`: the Python value of the field.

    Raises:
        ValueError, TypeError, KeyError, django.core.exceptions.ValidationError: not such a value.
    """
    if isinstance(saved, dict):
        ((name, text),) = saved.items()
        saved = _READERS[name](text)
    return field.to_python(saved)
