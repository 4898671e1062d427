"""The archive of shutdown reports, and the way between its rows and the records of :mod:`graceful.core.records`.

Every field of a record has a column of its own. Names that an index covers are cut at ``NAME_LENGTH`` characters,
which no name reaches that RQ or an operating system gives; everything else comes back as it went in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from graceful.core import records, report_json
from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Phase, Reason
from graceful.core.text import cut

ID_LENGTH = 64
NAME_LENGTH = 255
WORD_LENGTH = 32


def _choices(words: type[StrEnum]) -> list[tuple[str, str]]:
    return [(word.value, word.value.replace("_", " ")) for word in words]


# Fields name these functions, not the words: a migration then stays as it is when a word joins the others.
def reason_choices() -> list[tuple[str, str]]:
    return _choices(Reason)


def outcome_choices() -> list[tuple[str, str]]:
    return _choices(Outcome)


def phase_choices() -> list[tuple[str, str]]:
    return _choices(Phase)


def hook_outcome_choices() -> list[tuple[str, str]]:
    return _choices(HookOutcome)


def job_outcome_choices() -> list[tuple[str, str]]:
    return _choices(JobOutcome)


def signal_choices() -> list[tuple[str, str]]:
    return [(name, name) for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGKILL")]


def _name_index(field: str, name: str) -> models.Index:
    """Answers "the newest of this name" and "names that begin so", for which PostgreSQL needs the operator class."""
    return models.Index(
        fields=[field, "-happened_at", "-id"],
        opclasses=["varchar_pattern_ops", "timestamptz_ops", "varchar_ops"],
        name=name,
    )


@dataclass(frozen=True, slots=True)
class ReportRows:
    """One report as rows that are not saved yet."""

    report: ShutdownReport
    hooks: tuple[ReportedHook, ...]
    jobs: tuple[ReportedJob, ...]


class ShutdownReport(models.Model):
    """How one worker came to its end. Rows are written once, by the archive, and never changed."""

    id = models.CharField(_("id"), primary_key=True, max_length=ID_LENGTH)
    happened_at = models.DateTimeField(
        _("time"), help_text=_("When the shutdown was asked for, or else when it ended, or when the worker started.")
    )
    worker = models.CharField(_("worker"), max_length=NAME_LENGTH)
    hostname = models.CharField(_("host"), max_length=NAME_LENGTH)
    pid = models.IntegerField(_("process id"))
    release = models.CharField(_("release"), max_length=NAME_LENGTH, blank=True)
    queues = models.JSONField(_("queues"))
    worker_class = models.TextField(_("worker class"))
    reason = models.CharField(_("reason"), max_length=WORD_LENGTH, choices=reason_choices, null=True)
    signal = models.CharField(_("signal"), max_length=WORD_LENGTH, choices=signal_choices, null=True)
    outcome = models.CharField(_("outcome"), max_length=WORD_LENGTH, choices=outcome_choices, null=True)
    exit_code = models.IntegerField(_("exit code"), null=True)
    phase = models.CharField(_("last phase"), max_length=WORD_LENGTH, choices=phase_choices)
    started_at = models.DateTimeField(_("started"))
    requested_at = models.DateTimeField(_("shutdown requested"), null=True)
    drained_at = models.DateTimeField(_("drained"), null=True)
    ended_at = models.DateTimeField(_("ended"), null=True)
    drain_seconds = models.FloatField(_("seconds to drain"), null=True)
    hooks_seconds = models.FloatField(_("seconds in hooks"), null=True)
    total_seconds = models.FloatField(_("seconds in all"), null=True)
    jobs_finished = models.IntegerField(_("jobs finished"))
    jobs_failed = models.IntegerField(_("jobs failed"))
    hooks_ok = models.IntegerField(_("hooks ok"), help_text=_("So that a list need not read the hooks."))
    hooks_total = models.IntegerField(_("hooks"))
    notes = models.TextField(_("notes"), blank=True)

    class Meta:
        verbose_name = _("shutdown report")
        verbose_name_plural = _("shutdown reports")
        ordering = ["-happened_at", "-id"]
        default_permissions = ("view",)
        indexes = [
            models.Index(fields=["-happened_at", "-id"], name="graceful_by_time"),
            models.Index(fields=["outcome", "-happened_at", "-id"], name="graceful_by_outcome"),
            models.Index(fields=["reason", "-happened_at", "-id"], name="graceful_by_reason"),
            models.Index(fields=["signal", "-happened_at", "-id"], name="graceful_by_signal"),
            _name_index("worker", "graceful_by_worker"),
            _name_index("hostname", "graceful_by_hostname"),
            _name_index("release", "graceful_by_release"),
        ]

    def __str__(self) -> str:
        return f"{self.worker}, {self.happened_at:%Y-%m-%d %H:%M:%S}"

    @staticmethod
    def rows_of(record: records.ShutdownReport) -> ReportRows:
        """The rows of a record, not saved.

        Raises:
            UnreadableReport: the record holds what its own JSON form cannot hold.
        """
        # The way over JSON takes out what a database refuses: NUL, lone surrogates, numbers that are too large.
        clean = report_json.load(report_json.dump(record))
        report = ShutdownReport(
            id=clean.id,
            happened_at=stored_time(clean.requested_at or clean.ended_at or clean.started_at),
            worker=cut(clean.worker, NAME_LENGTH),
            hostname=cut(clean.hostname, NAME_LENGTH),
            pid=clean.pid,
            release=cut(clean.release, NAME_LENGTH),
            queues=list(clean.queues),
            worker_class=clean.worker_class,
            reason=clean.reason,
            signal=None if clean.signal is None else clean.signal[:WORD_LENGTH],
            outcome=clean.outcome,
            exit_code=clean.exit_code,
            phase=clean.phase,
            started_at=stored_time(clean.started_at),
            requested_at=_stored_or_none(clean.requested_at),
            drained_at=_stored_or_none(clean.drained_at),
            ended_at=_stored_or_none(clean.ended_at),
            drain_seconds=clean.seconds.drain,
            hooks_seconds=clean.seconds.hooks,
            total_seconds=clean.seconds.total,
            jobs_finished=clean.jobs.finished,
            jobs_failed=clean.jobs.failed,
            hooks_ok=sum(hook.outcome is HookOutcome.OK for hook in clean.hooks),
            hooks_total=sum(hook.outcome is not HookOutcome.SKIPPED for hook in clean.hooks),
            notes=clean.notes,
        )
        return ReportRows(
            report=report,
            hooks=tuple(ReportedHook.row_of(hook, report, place) for place, hook in enumerate(clean.hooks)),
            jobs=tuple(ReportedJob.row_of(job, report, place) for place, job in enumerate(clean.jobs.in_flight)),
        )

    def to_record(self) -> records.ShutdownReport:
        """The record of which these are the rows; reads hooks and jobs, unless they were prefetched."""
        return records.ShutdownReport(
            id=self.id,
            worker=self.worker,
            hostname=self.hostname,
            pid=self.pid,
            release=self.release,
            queues=tuple(self.queues),
            worker_class=self.worker_class,
            reason=None if self.reason is None else Reason(self.reason),
            signal=self.signal,
            outcome=None if self.outcome is None else Outcome(self.outcome),
            exit_code=self.exit_code,
            phase=Phase(self.phase),
            started_at=_read(self.started_at),
            requested_at=_read_or_none(self.requested_at),
            drained_at=_read_or_none(self.drained_at),
            ended_at=_read_or_none(self.ended_at),
            seconds=records.Spans(drain=self.drain_seconds, hooks=self.hooks_seconds, total=self.total_seconds),
            jobs=records.JobTally(
                finished=self.jobs_finished,
                failed=self.jobs_failed,
                in_flight=tuple(job.to_record() for job in _in_place(self.jobs.all())),
            ),
            hooks=tuple(hook.to_record() for hook in _in_place(self.hooks.all())),
            notes=self.notes,
        )


class LastShutdownReport(ShutdownReport):
    """The newest report. A model only so that the admin's index has a row that leads straight to it."""

    class Meta:
        proxy = True
        verbose_name = _("last shutdown report")
        verbose_name_plural = _("last shutdown report")
        default_permissions = ()


class ReportedHook(models.Model):
    """How one exit hook of a reported shutdown went."""

    id = models.BigAutoField(primary_key=True)
    report = models.ForeignKey(ShutdownReport, on_delete=models.CASCADE, related_name="hooks", db_index=False)
    place = models.IntegerField(help_text=_("Where it stands in the report, from 0."))
    name = models.TextField()
    outcome = models.CharField(max_length=WORD_LENGTH, choices=hook_outcome_choices)
    seconds = models.FloatField()
    timeout = models.FloatField(null=True)
    detail = models.TextField(blank=True)
    error = models.TextField(blank=True)
    traceback = models.TextField(blank=True)

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["report", "place"], name="graceful_hook_place")]

    def __str__(self) -> str:
        return f"{self.name}: {self.outcome}"

    @classmethod
    def row_of(cls, hook: records.HookResult, report: ShutdownReport, place: int) -> ReportedHook:
        return cls(
            report=report,
            place=place,
            name=hook.name,
            outcome=hook.outcome,
            seconds=hook.seconds,
            timeout=hook.timeout,
            detail=hook.detail,
            error=hook.error,
            traceback=hook.traceback,
        )

    def to_record(self) -> records.HookResult:
        return records.HookResult(
            name=self.name,
            outcome=HookOutcome(self.outcome),
            seconds=self.seconds,
            timeout=self.timeout,
            detail=self.detail,
            error=self.error,
            traceback=self.traceback,
        )


class ReportedJob(models.Model):
    """A job that a reported shutdown met in the worker's hands."""

    id = models.BigAutoField(primary_key=True)
    report = models.ForeignKey(ShutdownReport, on_delete=models.CASCADE, related_name="jobs", db_index=False)
    place = models.IntegerField(help_text=_("Where it stands in the report, from 0."))
    job_id = models.CharField(max_length=NAME_LENGTH)
    function = models.TextField()
    queue = models.TextField()
    outcome = models.CharField(max_length=WORD_LENGTH, choices=job_outcome_choices)
    seconds = models.FloatField(null=True)
    interruptions = models.IntegerField()
    stack = models.TextField(blank=True)

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["report", "place"], name="graceful_job_place")]
        indexes = [models.Index(fields=["job_id"], name="graceful_by_job")]

    def __str__(self) -> str:
        return f"{self.job_id}: {self.outcome}"

    @classmethod
    def row_of(cls, job: records.InFlightJob, report: ShutdownReport, place: int) -> ReportedJob:
        return cls(
            report=report,
            place=place,
            job_id=cut(job.id, NAME_LENGTH),
            function=job.function,
            queue=job.queue,
            outcome=job.outcome,
            seconds=job.seconds,
            interruptions=job.interruptions,
            stack=job.stack,
        )

    def to_record(self) -> records.InFlightJob:
        return records.InFlightJob(
            id=self.job_id,
            function=self.function,
            queue=self.queue,
            outcome=JobOutcome(self.outcome),
            seconds=self.seconds,
            interruptions=self.interruptions,
            stack=self.stack,
        )


Row = TypeVar("Row", ReportedHook, ReportedJob)


def _in_place(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row.place)


def stored_time(moment: datetime) -> datetime:
    """As the database takes it: with USE_TZ off Django stores naive times, in the project's own time zone."""
    return moment if settings.USE_TZ else timezone.make_naive(moment, timezone.get_default_timezone())


def _stored_or_none(moment: datetime | None) -> datetime | None:
    return None if moment is None else stored_time(moment)


def _read(moment: datetime) -> datetime:
    aware = timezone.make_aware(moment, timezone.get_default_timezone()) if timezone.is_naive(moment) else moment
    return aware.astimezone(UTC)


def _read_or_none(moment: datetime | None) -> datetime | None:
    return None if moment is None else _read(moment)
