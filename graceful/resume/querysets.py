"""Traversal of a QuerySet in the order of unique columns, in chunks (keyset pagination).

Memory is constant, each chunk costs the same however far it is (unlike OFFSET), and rows inserted meanwhile are
included if they sort after the current position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, Generic, TypeVar

from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db.models import Field, Model, Q, QuerySet
from django.db.models.query import FlatValuesListIterable, ModelIterable, NamedValuesListIterable, ValuesIterable

from graceful.exceptions import CursorMismatch
from graceful.resume import column_values

Row = TypeVar("Row")
CHUNK_SIZE = 2000
"""Rows per query, as ``QuerySet.iterator``."""


@dataclass(frozen=True)
class Column:
    """One of the columns that rows are ordered by."""

    field: Field[Any, Any]
    descending: bool

    @property
    def name(self) -> str:
        """For foreign keys the column (``customer_id``): by the field's name Django uses the other model's ordering."""
        return self.field.attname

    def __str__(self) -> str:
        return f"-{self.name}" if self.descending else self.name


class QuerySetTraversal(Generic[Row]):
    """Over a QuerySet.

    Args:
        queryset: with its filters, annotations and related objects; neither evaluated nor changed.
        order_by: names of the columns, ``"created_at,id"`` or a sequence, each with ``-`` for the other direction;
            None for the QuerySet's own ``order_by``, or the primary key where it has none.
        chunk_size: rows per query.

    Raises:
        ValueError: it cannot be traversed in this way; the message says why and what to do.
    """

    kind = "queryset"
    slow = False

    def __init__(
        self, queryset: QuerySet[Any, Row], order_by: str | Sequence[str] | None, chunk_size: int = CHUNK_SIZE
    ) -> None:
        if chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, got: {chunk_size}")
        _refuse(queryset)
        self.columns = _columns(queryset, order_by)
        self.chunk_size = chunk_size
        self.queryset = queryset.order_by(*map(str, self.columns))
        self.about = f"{queryset.model._meta.label} by {','.join(map(str, self.columns))}"
        self._values_of = _values_getter(queryset, self.columns)

    def items(self, position: Any) -> Iterator[tuple[Row, Any]]:
        last = None if position is None else self._decode(position)
        values_of = self._values_of
        while True:
            rows = self.queryset if last is None else self.queryset.filter(self._behind(last))
            begun = last
            for row in _fetched(rows[: self.chunk_size]):
                if last is begun:
                    self._check_first(row)
                # Read before the job gets the row: it may change it.
                values = values_of(row)
                # A filter across a relation can duplicate a row; each is yielded once, also across chunks.
                if values != last:
                    last = values
                    yield row, values
            if last is begun:
                return

    def _behind(self, values: Any) -> Q:
        """The condition for rows after the one with these values."""
        if len(self.columns) == 1:
            return Q((_beyond(self.columns[0]), values))
        # Databases use an index for the first column's range, but not for the alternatives alone.
        first = self.columns[0]
        alternatives = Q()
        equal: dict[str, Any] = {}
        for column, value in zip(self.columns, values, strict=True):
            alternatives |= Q(**equal, **{_beyond(column): value})
            equal[column.name] = value
        return Q((f"{_beyond(first)}e", values[0])) & alternatives

    def _check_first(self, row: Any) -> None:
        if isinstance(row, Model):
            missing = row.get_deferred_fields() & {column.name for column in self.columns}
            if missing:
                raise ValueError(f"the ordering needs {', '.join(sorted(missing))}: do not defer them")

    def encode(self, position: Any) -> Any:
        values = (position,) if len(self.columns) == 1 else position
        return [column_values.encode(column.field, value) for column, value in zip(self.columns, values, strict=True)]

    def _decode(self, saved: Any) -> Any:
        try:
            pairs = zip(self.columns, saved, strict=True)
            values = tuple(column_values.decode(column.field, value) for column, value in pairs)
        except (ValueError, TypeError, KeyError, ValidationError) as error:
            raise CursorMismatch(f"the cursor {saved!r} does not fit {self.about}: {error}") from error
        return values[0] if len(values) == 1 else values

    def count(self) -> int | None:
        return self.queryset.count()


def _fetched(rows: Any) -> Iterable[Any]:
    """The rows, read from the database now, and turned into objects one by one.

    As ``QuerySet._fetch_all`` (Django 5.2 to 6.1), but without its list: a chunk of objects in memory costs a fifth of
    the time, in garbage collection.
    """
    fetched: Iterable[Any] = rows if rows._prefetch_related_lookups else rows._iterable_class(rows)
    return fetched


def _beyond(column: Column) -> str:
    return f"{column.name}__{'lt' if column.descending else 'gt'}"


def _refuse(queryset: QuerySet[Any, Any]) -> None:
    query = queryset.query
    if query.is_sliced:
        raise ValueError("a sliced QuerySet cannot be resumed; filter it instead, or pass a list of its rows")
    if query.combinator:
        raise ValueError(f"a QuerySet made by {query.combinator}() cannot be resumed; use one filter with Q(...)")
    if query.distinct_fields:
        raise ValueError("distinct() with names of fields cannot be resumed; distinct() without them can")
    if not query.standard_ordering:
        raise ValueError('reverse() cannot be resumed; pass order_by="-..." instead')
    if isinstance(query.group_by, tuple):
        raise ValueError("groups (values() before annotate()) cannot be resumed; pass a list of them")
    if any(getattr(each, "contains_over_clause", False) for each in query.annotations.values()):
        raise ValueError("window functions cannot be resumed: each chunk would be a window of its own")


def _columns(queryset: QuerySet[Any, Any], order_by: str | Sequence[str] | None) -> tuple[Column, ...]:
    names: Sequence[Any]
    if order_by is None:
        if queryset.query.extra_order_by:
            raise ValueError("extra(order_by=...) cannot be resumed; use order_by()")
        # Meta.ordering is for display; a job without order_by gets the fastest order.
        names = queryset.query.order_by
    else:
        names = order_by.split(",") if isinstance(order_by, str) else order_by
    columns: list[Column] = []
    for name in names or ("pk",):
        columns += _columns_named(queryset.model, name)
    label = queryset.model._meta.label
    for column in columns:
        if column.field.null:
            raise ValueError(f"{label} cannot be ordered by {column.name} here: it may be NULL, which has no position")
    if not _unique(queryset.model, {column.name for column in columns}):
        order = ",".join(map(str, columns))
        raise ValueError(f'{label} by {order} is not a unique order, rows could be skipped; use order_by="{order},pk"')
    return tuple(columns)


def _columns_named(model: type[Model], name: Any) -> list[Column]:
    if not isinstance(name, str):
        raise ValueError(f"only an order by the model's own fields can be resumed, got: {name!r}")
    descending, name = name.strip().startswith("-"), name.strip().lstrip("-+")
    if name == "pk":
        return [Column(field, descending) for field in model._meta.pk_fields]
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        field = None
    if not isinstance(field, Field) or not field.column:
        raise ValueError(f"{model._meta.label} has no column {name!r} of its own to be ordered by")
    return [Column(field, descending)]


def _unique(model: type[Model], names: set[str]) -> bool:
    """Whether no two rows have equal values in all of these columns."""
    meta = model._meta
    sets: list[Sequence[str]] = [[field.name for field in meta.pk_fields], *meta.unique_together]
    sets += [constraint.fields for constraint in meta.total_unique_constraints]
    sets += [[field.name] for field in meta.concrete_fields if field.unique]
    return any({_column_of(model, name) for name in each} <= names for each in sets)


def _column_of(model: type[Model], name: str) -> str:
    field = model._meta.get_field(name)
    return field.attname if isinstance(field, Field) else name


def _values_getter(queryset: QuerySet[Any, Any], columns: Sequence[Column]) -> Callable[[Any], Any]:
    """A function that reads the ordering columns of a row: one value, or a tuple of several."""
    names = [column.name for column in columns]
    rows: Any = queryset
    row_type = rows._iterable_class
    if issubclass(row_type, ModelIterable):
        return attrgetter(*names)
    # For values() and values_list(): each column under its name in the QuerySet.
    asked = list(rows._fields or [field.attname for field in queryset.model._meta.concrete_fields])
    found = []
    for column in columns:
        aliases = {column.name, column.field.name} | ({"pk"} if column.field.primary_key else set())
        there = [name for name in asked if isinstance(name, str) and name in aliases]
        if not there:
            raise ValueError(f"the rows need {column.name!r}: name it in values() or values_list()")
        found.append(there[0])
    if issubclass(row_type, FlatValuesListIterable):
        return _itself
    if issubclass(row_type, ValuesIterable):
        return itemgetter(*found)
    if issubclass(row_type, NamedValuesListIterable):
        return attrgetter(*found)
    # Annotations that values_list() does not name come after the fields.
    return itemgetter(*(asked.index(name) for name in found))


def _itself(row: Any) -> Any:
    return row
