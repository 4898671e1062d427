"""The evidence of a job that does not come to its end: kept in few bytes, read as untrusted, told in lines."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graceful.core import attempts
from graceful.core.attempts import LINE_LIMIT, MOST_ATTEMPTS, Attempt, AttemptEnd, dump, load
from graceful.exceptions import PoisonJob, TooManyInterruptions
from graceful.worker.queue.fail_job import too_many_interruptions

AT = datetime(2026, 11, 25, 8, 0, 1, tzinfo=UTC)
DIED = Attempt(AttemptEnd.WORKER_DIED, AT, "w1", "web-1", "shop.jobs.rebuild", out_of_memory=True)
KILLED = Attempt(
    AttemptEnd.KILLED,
    AT,
    "w2",
    "web-2",
    "shop.jobs.rebuild",
    "SIGKILL",
    480 * 2**20,
    stack='  File "/srv/shop/jobs.py", line 71, in rebuild\n    rows.append(row)',
)
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=60)
any_attempt = st.builds(
    Attempt,
    st.sampled_from(AttemptEnd),
    st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(
        lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000)
    ),
    text,
    text,
    text,
    text.map(lambda name: name[:32]),
    st.none() | st.integers(1, 2**53 - 1),
    st.booleans(),
    text,
)


@given(st.lists(any_attempt, max_size=MOST_ATTEMPTS))
def test_attempts_come_back_as_they_were(written: list[Attempt]) -> None:
    """Each line is one attempt, whatever its texts hold, and is read back as it was."""
    lines = [dump(attempt) for attempt in written]
    assert [line for line in lines if "\n" in line] == []
    assert load("\n".join(lines)) == load("\n".join(lines).encode()) == tuple(written)


@given(st.text(max_size=30_000), st.text(max_size=5000))
def test_a_line_has_a_bound(stack: str, name: str) -> None:
    """Long stacks and names are cut, also those of which JSON takes many characters for one."""
    attempt = Attempt(AttemptEnd.KILLED, AT, name, name, name, name, 2**53, True, stack)
    assert len(dump(attempt)) <= LINE_LIMIT
    assert len(dump(Attempt(AttemptEnd.KILLED, AT, "\x00" * 9999, "\x00" * 9999, "\U0001f600" * 9999))) <= LINE_LIMIT


@pytest.mark.parametrize(
    "stored",
    [
        *(None, "", b"", b"\xff\xfe", "{", "[]", "null", "7", '{"ended": "moon"}', '{"ended": "killed"}', "[" * 5000),
        *('{"ended": "killed", "at": "x", "worker": "w"}', '{"ended": "killed", "at": "2026-11-25", "worker": 7}'),
    ],
)
def test_what_is_no_attempt_is_passed_over(stored: str | bytes | None) -> None:
    """A foreign or broken line takes nothing from the others."""
    assert load(stored) == ()
    around = stored.decode("utf-8", "replace") if isinstance(stored, bytes) else stored or ""
    assert load(f"{dump(DIED)}\n{around}\n{dump(KILLED)}") == (DIED, KILLED)


def test_only_the_newest_are_read() -> None:
    """However many lines there are, so many attempts are shown."""
    assert load("\n".join([dump(KILLED), *[dump(DIED)] * MOST_ATTEMPTS])) == (DIED,) * MOST_ATTEMPTS


def test_the_error_of_a_poison_job_names_the_evidence() -> None:
    """Time, worker, host, signal, peak memory and place of each attempt stand in it, and the last stack."""
    error = too_many_interruptions(4, (DIED, KILLED))
    assert type(error) is PoisonJob
    second = "killed at the hard limit of a shutdown, by SIGKILL, peak memory 480 MB, at jobs.py:71"
    assert str(error).splitlines() == [
        "interrupted 4 times; its worker was killed in 1 of the last 2",
        "1. 2026-11-25 08:00:01+00:00, worker w1 on web-1: its worker was killed, probably out of memory",
        f"2. 2026-11-25 08:00:01+00:00, worker w2 on web-2: {second}",
        "Where it stood last:",
        '  File "/srv/shop/jobs.py", line 71, in rebuild',
        "    rows.append(row)",
    ]


def test_shutdowns_alone_make_no_poison() -> None:
    """A job that cost no worker fails as before, with the evidence there is."""
    error = too_many_interruptions(4, (KILLED,))
    assert type(error) is TooManyInterruptions
    assert str(error).startswith("interrupted by 4 shutdowns, the last one included\n1. ")
    assert str(too_many_interruptions(4, ())) == "interrupted by 4 shutdowns, the last one included"
    assert str(too_many_interruptions(4, (), "no fork")) == "its work horse could not start: no fork (interruption 4)"


@pytest.mark.parametrize(
    ("stack", "place"),
    [
        ("", ""),
        ("no frame", ""),
        ('  File "/a/outer.py", line 1, in f\n    g()\n  File "/a/inner.py", line 2, in g', "inner.py:2"),
        (
            'Thread 0x1 (most recent call first):\n  File "/a/inner.py", line 2 in g\n  File "/a/o.py", line 1 in f',
            "inner.py:2",
        ),
        ('When:\n  File "/a/first.py", line 3, in h\n\nWhen:\n  File "/a/inner.py", line 2 in g', "first.py:3"),
    ],
)
def test_the_place_is_the_innermost_frame(stack: str, place: str) -> None:
    """Of a traceback that is the last frame, of what faulthandler writes the first."""
    assert attempts.place_of(stack) == place


def test_a_name_cannot_break_a_line() -> None:
    """Control characters of names are escaped: the error has one line for each attempt."""
    attempt = Attempt(
        AttemptEnd.KILLED, AT, "w\n2. forged", "h\x1b[2J", signal="S\n", stack='  File "a\x1bb.py", line 1'
    )
    (line,) = [each for each in attempts.described((attempt,)) if each.startswith("1.")]
    assert line.endswith(
        r"worker w\n2. forged on h\x1b[2J: killed at the hard limit of a shutdown, by S\n, at a\x1bb.py:1"
    )
