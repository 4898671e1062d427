"""The JSON form of a shutdown report: written and read here only.

Input is untrusted: every field is validated, and texts are returned in a form that every database accepts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Phase, Reason
from graceful.core.records import Grace, HookResult, InFlightJob, JobTally, PeakMemory, ShutdownReport, Spans
from graceful.core.text import TEXT_LIMIT, cut
from graceful.core.untrusted import Fields, parse, storable
from graceful.exceptions import UnreadableReport

VERSION = 1
ENTRY_LIMIT = 256 * 1024
"""Characters that one report may have in JSON."""


def dump(report: ShutdownReport) -> str:
    """A report as JSON of at most ``ENTRY_LIMIT`` characters; long texts are cut, with a mark."""
    text = _dump(report, TEXT_LIMIT)
    limit = TEXT_LIMIT
    while len(text) > ENTRY_LIMIT and limit > 64:
        limit //= 2
        text = _dump(report, limit)
    if len(text) > ENTRY_LIMIT:
        jobs = report.jobs._replace(in_flight=report.jobs.in_flight[:100])
        text = _dump(report._replace(hooks=report.hooks[:100], jobs=jobs), limit)
    return text


def plain(report: ShutdownReport) -> dict[str, Any]:
    """A report in plain types, as ``json.loads(dump(report))`` gives it."""
    loaded: dict[str, Any] = json.loads(dump(report))
    return loaded


def load(text: str | bytes) -> ShutdownReport:
    """Read a report back.

    Raises:
        UnreadableReport: not JSON, another version, too large, or a field of a wrong type.
    """
    parsed = parse(text)
    if parsed.get("version") != VERSION:
        raise UnreadableReport(f"version {VERSION} is read, got: {parsed.get('version')!r}"[:200])
    return _load(parsed)


def restored(stored: Reason | None, recycled: object) -> Reason | None:
    """The reason of what is stored of it (:attr:`Reason.stored`); a word of a later version is passed over."""
    return next((each for each in (Reason.MEMORY, Reason.AGE) if each == recycled), stored)


def _dump(report: ShutdownReport, limit: int) -> str:
    def moment(value: datetime | None) -> str | None:
        return value.astimezone(UTC).isoformat() if value else None

    def seconds(value: float | None) -> float | None:
        return None if value is None else round(value, 6)

    return json.dumps(
        {
            "version": VERSION,
            "id": report.id,
            "worker": cut(report.worker, limit),
            "hostname": cut(report.hostname, limit),
            "pid": report.pid,
            "release": cut(report.release, limit),
            "queues": [cut(name, limit) for name in report.queues],
            "worker_class": report.worker_class,
            "reason": report.reason and report.reason.stored,
            "recycled": report.reason and report.reason.recycled,
            "signal": report.signal,
            "outcome": report.outcome,
            "exit_code": report.exit_code,
            "phase": report.phase,
            "started_at": moment(report.started_at),
            "requested_at": moment(report.requested_at),
            "drained_at": moment(report.drained_at),
            "ended_at": moment(report.ended_at),
            "seconds": {
                "drain": seconds(report.seconds.drain),
                "hooks": seconds(report.seconds.hooks),
                "total": seconds(report.seconds.total),
            },
            "jobs": {
                "finished": report.jobs.finished,
                "failed": report.jobs.failed,
                "in_flight": [
                    {
                        "id": cut(job.id, limit),
                        "function": cut(job.function, limit),
                        "queue": cut(job.queue, limit),
                        "outcome": job.outcome,
                        "seconds": seconds(job.seconds),
                        "interruptions": job.interruptions,
                        "stack": cut(job.stack, limit),
                        "started_at": moment(job.started_at),
                        "progress_done": job.progress_done,
                        "progress_total": job.progress_total,
                    }
                    for job in report.jobs.in_flight
                ],
            },
            "hooks": [
                {
                    "name": cut(hook.name, limit),
                    "outcome": hook.outcome,
                    "seconds": seconds(hook.seconds),
                    "timeout": seconds(hook.timeout),
                    "detail": cut(hook.detail, limit),
                    "error": cut(hook.error, limit),
                    "traceback": cut(hook.traceback, limit),
                }
                for hook in report.hooks
            ],
            "notes": cut(report.notes, limit),
            "grace": {
                "period": seconds(report.grace.period),
                "hooks": seconds(report.grace.hooks),
                "interrupt": seconds(report.grace.interrupt),
            },
            "peak_bytes": {"worker": report.peak.worker, "horse": report.peak.horse},
            "quiet": report.quiet,
        }
    )


def _load(parsed: Mapping[str, object]) -> ShutdownReport:
    top = Fields(parsed, "")
    spans = Fields(parsed.get("seconds"), "seconds.")
    jobs = Fields(parsed.get("jobs"), "jobs.")
    grace = Fields(parsed.get("grace") or {}, "grace.")  # A worker of an earlier release writes none.
    peak = Fields(parsed.get("peak_bytes") or {}, "peak_bytes.")  # Nor this.
    queues = top.rows("queues")
    if not all(isinstance(name, str) for name in queues):
        raise UnreadableReport("queues must be a list of strings")
    in_flight = [Fields(row, "jobs.in_flight.") for row in jobs.rows("in_flight")]
    hooks = [Fields(row, "hooks.") for row in top.rows("hooks")]
    report_id = top.text("id")
    if not 1 <= len(report_id) <= 64:
        raise UnreadableReport(f"id must have 1 to 64 characters, got: {report_id[:80]!r}")
    return ShutdownReport(
        id=report_id,
        worker=top.text("worker"),
        hostname=top.text("hostname"),
        pid=top.whole("pid"),
        release=top.text("release"),
        queues=tuple(storable(str(name)) for name in queues),
        worker_class=top.text("worker_class"),
        reason=restored(top.word_or_none("reason", Reason), parsed.get("recycled")),
        signal=top.text_or_none("signal"),
        outcome=top.word_or_none("outcome", Outcome),
        exit_code=top.whole_or_none("exit_code"),
        phase=top.word("phase", Phase),
        started_at=top.moment("started_at"),
        requested_at=top.moment_or_none("requested_at"),
        drained_at=top.moment_or_none("drained_at"),
        ended_at=top.moment_or_none("ended_at"),
        seconds=Spans(
            drain=spans.seconds_or_none("drain"),
            hooks=spans.seconds_or_none("hooks"),
            total=spans.seconds_or_none("total"),
        ),
        jobs=JobTally(
            finished=jobs.whole("finished"),
            failed=jobs.whole("failed"),
            in_flight=tuple(
                InFlightJob(
                    id=row.text("id"),
                    function=row.text("function"),
                    queue=row.text("queue"),
                    outcome=row.word("outcome", JobOutcome),
                    seconds=row.seconds_or_none("seconds"),
                    interruptions=row.whole("interruptions"),
                    stack=row.text("stack"),
                    started_at=row.moment_or_none("started_at"),
                    progress_done=row.count_or_none("progress_done"),
                    progress_total=row.count_or_none("progress_total"),
                )
                for row in in_flight
            ),
        ),
        hooks=tuple(
            HookResult(
                name=row.text("name"),
                outcome=row.word("outcome", HookOutcome),
                seconds=row.seconds_or_none("seconds") or 0.0,
                timeout=row.seconds_or_none("timeout"),
                detail=row.text("detail"),
                error=row.text("error"),
                traceback=row.text("traceback"),
            )
            for row in hooks
        ),
        notes=top.text("notes"),
        grace=Grace(
            period=grace.seconds_or_none("period"),
            hooks=grace.seconds_or_none("hooks"),
            interrupt=grace.seconds_or_none("interrupt"),
        ),
        peak=PeakMemory(worker=peak.count_or_none("worker"), horse=peak.count_or_none("horse")),
        quiet=parsed.get("quiet") is True,
    )
