"""The archive of shutdown reports: every field of a record (:mod:`graceful.core.records`) has a column of its own.

Conversion is in :mod:`graceful.reports.rows`. Indexed names are cut at ``NAME_LENGTH`` characters, which no name of
RQ or an operating system reaches; everything else is stored unchanged.
"""

from __future__ import annotations

from enum import StrEnum

from django.db import models
from django.utils.translation import gettext_lazy as _

from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Phase, Reason

ID_LENGTH = 64
NAME_LENGTH = 255
WORD_LENGTH = 32


def _choices(words: type[StrEnum]) -> list[tuple[str, str]]:
    return [(word.value, word.value.replace("_", " ")) for word in words]


# Fields refer to these functions, not to the values: then a new value needs no migration.
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


class ShutdownReport(models.Model):
    """How one worker ended. Rows are written by the archive only."""

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


class ReportedJob(models.Model):
    """A job that was in flight at a reported shutdown."""

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
