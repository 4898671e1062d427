"""What is read from Redis is anything: each reader gives a record of ours or says that it is none."""

from __future__ import annotations

import json
import math
import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from graceful.core import report_json, untrusted
from graceful.core.post_mortem import Findings, closed
from graceful.core.text import one_line
from graceful.exceptions import UnreadableReport
from graceful.reports import set_aside
from graceful.reports.journal import JOURNAL_KEY, UNREADABLE_KEY
from graceful.reports.rows import rows_of
from graceful.worker.cluster.process_identity import Process
from graceful.worker.cluster.registration import HEARTBEATS_KEY, MACHINE_KEY, WORKERS_KEY, Registration
from graceful.worker.queue.fetch import HELD_KEY, HOLDERS_KEY, held_fields
from tests.db.samples import a_report

ANY_TEXT = st.text(st.characters(exclude_categories=()))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.integers(10**300, 10**4000)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3), max_leaves=6
)
GOOD = Registration("worker-id", "worker", ("default", "high"), Process("boot/1", 7, "123"), 3, "scheduler")


def paths(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to each value in a JSON document."""
    pairs: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [above, *(path for key, inner in pairs for path in paths(inner, (*above, key)))]


def put(document: Any, path: tuple[Any, ...], value: Any) -> str:
    """The document as JSON, with another value at one place."""
    document = json.loads(json.dumps(document))
    if not path:
        return json.dumps(value)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(document)


REGISTRATION = json.loads(GOOD.to_json())
REPORT = report_json.plain(a_report(id="x"))


def is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def test_a_registration_is_read_back() -> None:
    """The strict reader takes what the writer writes, also that of a version that knew less or knows more."""
    assert Registration.from_json(GOOD.to_json()) == GOOD
    older = {key: value for key, value in REGISTRATION.items() if key != "scheduler"}
    assert Registration.from_json(json.dumps(older)) == GOOD._replace(scheduler="")
    assert Registration.from_json(json.dumps({**REGISTRATION, "more": [1]})) == GOOD
    many = GOOD._replace(queues=tuple(f"queue-{number}" for number in range(5000)))
    assert Registration.from_json(many.to_json()) == many


@given(st.sampled_from(paths(REGISTRATION)), ANYTHING)
@example(("process", "pid"), math.inf)
@example(("process", "pid"), -1)
@example(("oom_kills",), math.inf)
@example(("worker",), "\ud800")
@example(("queues", 0), "\ud800")
@example(("process", "started"), 10**4000)
def test_any_registration_is_read_or_refused(path: tuple[Any, ...], value: object) -> None:
    """Whatever stands in any field, every field of what comes back is of its type and in range."""
    try:
        text = put(REGISTRATION, path, value)
    except ValueError:
        return  # Python writes no number of so many digits.
    registration = Registration.from_json(text)
    if registration is None:
        return
    names = [registration.worker_id, registration.worker, registration.process.machine, *registration.queues]
    assert all(isinstance(name, str) and name and is_utf8(name) for name in names)
    assert isinstance(registration.process.started, str)
    assert is_utf8(registration.process.started + registration.scheduler)
    assert type(registration.process.pid) is int
    assert 0 < registration.process.pid < 2**31
    assert registration.oom_kills is None or type(registration.oom_kills) is int
    registration.to_json().encode()


@given(st.binary() | ANY_TEXT)
@example("[" * 100_000)
@example('{"process": ' * 50_000)
@example('{"life": ' + "9" * 5000 + "}")
def test_any_bytes_are_no_registration(text: bytes | str) -> None:
    """Also where they are no JSON, no text or deeply nested."""
    assert Registration.from_json(text) is None
    with pytest.raises(UnreadableReport):
        report_json.load(text)


@given(st.sampled_from(paths(REPORT)), ANYTHING)
@example(("started_at",), "0001-01-01T00:00:00+00:00")
@example(("requested_at",), "9999-12-31T23:59:59+00:00")
@example(("pid",), math.inf)
def test_any_report_can_be_stored_or_is_refused(path: tuple[Any, ...], value: object) -> None:
    """A report that is read has rows that every database takes, and times that every time zone has."""
    try:
        report = report_json.load(put(REPORT, path, value))
    except (UnreadableReport, ValueError):
        return
    stored = report_json.load(report_json.dump(report))  # With seconds rounded to microseconds.
    assert report_json.load(report_json.dump(stored)) == stored
    for moment in (report.started_at, report.requested_at, report.drained_at, report.ended_at):
        assert moment is None or 1970 <= moment.year < 3000
    rows_of(report)


@given(st.floats() | st.none())
@example(math.inf)
@example(-62135596800.0)
def test_any_score_of_a_heartbeat_closes_a_report(score: float | None) -> None:
    """A score that is no clock's says nothing of when the worker was last seen."""
    found_at = datetime(2026, 1, 1, tzinfo=UTC)
    report = closed(a_report(outcome=None), Findings(found_at, "w", score, None, oom_killed=False))
    assert report_json.load(report_json.dump(report)).ended_at is not None


@given(st.dictionaries(st.binary() | ANY_TEXT, st.binary(max_size=50) | st.just(b"9" * 50_000), max_size=5))
def test_any_fields_of_what_a_worker_held(fields: dict[bytes | str, bytes | str]) -> None:
    """Those that are no text are not there; the others are as they were."""
    for field, value in held_fields(fields).items():
        assert is_utf8(value) or isinstance(field, str)
        assert len(value) <= untrusted.NAME_LIMIT


@given(ANY_TEXT)
@example("\x1b]0;owned\x07\x1b[2J\r\n\u202e\u2066\x9b31m\ud800\x7f")
def test_one_line_is_safe_in_a_terminal(text: str) -> None:
    """No control or format character, no line break and no invalid Unicode is left; nothing is lost by it."""
    shown = one_line(text)
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"}
    shown.encode()
    assert len(shown) >= len(text)


def test_every_key_of_ours_has_a_type() -> None:
    """A key without one would not be set aside where it is of another."""
    for key in (WORKERS_KEY, HEARTBEATS_KEY, HOLDERS_KEY, JOURNAL_KEY, UNREADABLE_KEY, MACHINE_KEY, HELD_KEY):
        assert set_aside.type_of(key.format("x")), key
    assert set_aside.type_of(WORKERS_KEY + set_aside.UNREADABLE_SUFFIX) == "hash"
    assert set_aside.type_of("rq:queue:default") is None
