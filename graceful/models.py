"""The archive of shutdown reports: every field of a record (:mod:`graceful.core.records`) has a column of its own.

Conversion is in :mod:`graceful.reports.rows`. Indexed names are cut at ``NAME_LENGTH`` characters, which no name of
RQ or an operating system reaches; everything else is stored unchanged.
"""

from __future__ import annotations

from django.db import models
from django.utils.functional import lazy
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Phase, Reason
from graceful.labels import Label, choices

ID_LENGTH = 64
NAME_LENGTH = 255
WORD_LENGTH = 32


# Fields refer to these functions, not to the values: then a new value needs no migration.
def reason_choices() -> list[tuple[str, Label]]:
    return [choice for choice in choices(Reason) if not Reason(choice[0]).recycled]


def recycled_choices() -> list[tuple[str, Label]]:
    return [choice for choice in choices(Reason) if Reason(choice[0]).recycled]


def outcome_choices() -> list[tuple[str, Label]]:
    return choices(Outcome)


def phase_choices() -> list[tuple[str, Label]]:
    return choices(Phase)


def hook_outcome_choices() -> list[tuple[str, Label]]:
    return choices(HookOutcome)


def job_outcome_choices() -> list[tuple[str, Label]]:
    return choices(JobOutcome)


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
    recycled = models.CharField(
        _("recycled for"),
        max_length=WORD_LENGTH,
        choices=recycled_choices,
        null=True,
        help_text=_('The reason is then stored as "max jobs", which earlier releases know.'),
    )
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
    grace_period = models.FloatField(_("grace period"), null=True, help_text=_("GRACEFUL_TIMEOUT, in seconds."))
    hooks_timeout = models.FloatField(_("hooks timeout"), null=True)
    interrupt_timeout = models.FloatField(_("interrupt timeout"), null=True)
    peak_bytes = models.BigIntegerField(_("peak memory of the worker"), null=True)
    horse_peak_bytes = models.BigIntegerField(_("peak memory of a work horse"), null=True)
    # A worker of an earlier release inserts without it, hence the database's own default.
    rolled_up = models.BooleanField(db_default=False, default=False, editable=False)

    class Meta:
        verbose_name = _("shutdown report")
        verbose_name_plural = _("shutdown reports")
        ordering = ["-happened_at", "-id"]
        default_permissions = ("view",)
        permissions = [("quiet_workers", "Can make workers quiet, and have them resume")]
        indexes = [
            models.Index(fields=["-happened_at", "-id"], name="graceful_by_time"),
            models.Index(fields=["outcome", "-happened_at", "-id"], name="graceful_by_outcome"),
            models.Index(fields=["reason", "-happened_at", "-id"], name="graceful_by_reason"),
            models.Index(fields=["signal", "-happened_at", "-id"], name="graceful_by_signal"),
            models.Index(
                fields=["recycled", "-happened_at", "-id"],
                name="graceful_by_recycled",
                condition=models.Q(recycled__isnull=False),
            ),
            _name_index("worker", "graceful_by_worker"),
            _name_index("hostname", "graceful_by_hostname"),
            _name_index("release", "graceful_by_release"),
            models.Index(fields=["id"], name="graceful_not_rolled_up", condition=models.Q(rolled_up=False)),
        ]

    def __str__(self) -> str:
        return f"{self.worker}, {self.happened_at:%Y-%m-%d %H:%M:%S}"


class RecentlyUnclean:
    """How many unclean shutdowns the admin counted last; the only text of an index's row is its model's name."""

    count = 0

    @classmethod
    def row_name(cls) -> str:
        """The name of the row ``Last shutdown report``, with the count if there is one."""
        name = gettext("last shutdown report")
        if not cls.count:
            return name
        words = ngettext("%(name)s (%(count)d unclean in 24 h)", "%(name)s (%(count)d unclean in 24 h)", cls.count)
        return words % {"name": name, "count": cls.count}


class LastShutdownReport(ShutdownReport):
    """The newest report. A model only so that the admin's index has a row that leads straight to it."""

    class Meta:
        proxy = True
        verbose_name = _("last shutdown report")
        verbose_name_plural = lazy(RecentlyUnclean.row_name, str)()
        default_permissions = ()


class LastDeploy(ShutdownReport):
    """The newest deploy. A model only so that the admin's index has a row that leads straight to it."""

    class Meta:
        proxy = True
        verbose_name = _("last deploy")
        verbose_name_plural = _("last deploy")
        default_permissions = ()


class PoisonJob(ShutdownReport):
    """Jobs that were failed because they were interrupted, or killed their workers, too often.

    They are in Redis; a model only so that the admin's index has a row for them, and that there is a permission.
    """

    class Meta:
        proxy = True
        verbose_name = _("poison job")
        verbose_name_plural = _("poison jobs")
        default_permissions = ()
        permissions = [("requeue_poison", "Can requeue poison jobs")]

    def __str__(self) -> str:
        return self.pk


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
    started_at = models.DateTimeField(null=True)
    progress_done = models.BigIntegerField(null=True)
    progress_total = models.BigIntegerField(null=True)
    # The run after a requeueing, as the worker that started it has told.
    again_at = models.DateTimeField(null=True)
    again_worker = models.CharField(max_length=NAME_LENGTH, blank=True, db_default="", default="")
    again_release = models.CharField(max_length=NAME_LENGTH, blank=True, db_default="", default="")
    again_outcome = models.CharField(max_length=WORD_LENGTH, blank=True, db_default="", default="")
    again_ended_at = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["report", "place"], name="graceful_job_place")]
        indexes = [models.Index(fields=["job_id"], name="graceful_by_job")]

    def __str__(self) -> str:
        return f"{self.job_id}: {self.outcome}"


class ReportKeyword(models.Model):
    """A name by which the list finds reports: a queue of the worker, or an exit hook that failed or timed out.

    Time and outcome are the report's: a filter is read from one index, in the order of the list.
    """

    class Kind(models.TextChoices):
        """What the name is of."""

        QUEUE = "queue"
        FAILED_HOOK = "failed_hook"

    id = models.BigAutoField(primary_key=True)
    # Without a constraint, so that a worker of an earlier release, which does not know this table, can remove reports.
    report = models.ForeignKey(
        ShutdownReport, on_delete=models.CASCADE, related_name="keywords", db_index=False, db_constraint=False
    )
    kind = models.CharField(max_length=WORD_LENGTH)
    value = models.CharField(max_length=NAME_LENGTH)
    happened_at = models.DateTimeField()
    outcome = models.CharField(max_length=WORD_LENGTH, null=True)

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["report", "kind", "value"], name="graceful_keyword_once")]
        indexes = [
            models.Index(fields=["kind", "value", "-happened_at", "-report"], name="graceful_by_keyword"),
            models.Index(
                fields=["kind", "value", "outcome", "-happened_at", "-report"], name="graceful_keyword_outcome"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.value}"


class Release(models.Model):
    """A release that a worker of this project has run, or that ``manage.py mark_release`` has named."""

    label = models.CharField(primary_key=True, max_length=NAME_LENGTH)
    started_at = models.DateTimeField(
        help_text=_("The first start of a worker of this release, or when it was marked.")
    )

    class Meta:
        verbose_name = _("release")
        verbose_name_plural = _("releases")
        ordering = ["-started_at", "-label"]
        default_permissions = ()
        indexes = [models.Index(fields=["-started_at", "-label"], name="graceful_releases")]

    def __str__(self) -> str:
        return self.label


class ShutdownRollup(models.Model):
    """Shutdowns of one day (in UTC), release, outcome and reason, added up.

    Each report is counted once, when maintenance or a page finds it with ``rolled_up`` false. Days older than the
    reports are kept are folded into rows of the day 1970-01-01 without a release. The histograms are lists of counts,
    one for each bound in :data:`graceful.core.histogram.BOUNDS` and one for what is above the last.
    """

    id = models.BigAutoField(primary_key=True)
    day = models.DateField()
    release = models.CharField(max_length=NAME_LENGTH, blank=True)
    outcome = models.CharField(max_length=WORD_LENGTH)
    reason = models.CharField(max_length=WORD_LENGTH)
    count = models.BigIntegerField(default=0)
    jobs_finished = models.BigIntegerField(default=0)
    jobs_failed = models.BigIntegerField(default=0)
    jobs_interrupted = models.BigIntegerField(default=0)
    drain_seconds = models.FloatField(default=0.0)
    drain_histogram = models.JSONField(default=list)
    hooks_seconds = models.FloatField(default=0.0)
    hooks_histogram = models.JSONField(default=list)
    total_seconds = models.FloatField(default=0.0)
    total_histogram = models.JSONField(default=list)

    class Meta:
        # Its row in the admin's index leads to the page of trends.
        verbose_name = _("trends")
        verbose_name_plural = _("trends")
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["day", "release", "outcome", "reason"], name="graceful_rollup_once")
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.release} {self.outcome} {self.reason}: {self.count}"


class HookRollup(models.Model):
    """Runs of one exit hook on one day (in UTC) with one outcome, added up; see :class:`ShutdownRollup`."""

    id = models.BigAutoField(primary_key=True)
    day = models.DateField()
    name = models.CharField(max_length=NAME_LENGTH)
    outcome = models.CharField(max_length=WORD_LENGTH)
    count = models.BigIntegerField(default=0)
    seconds = models.FloatField(default=0.0)
    histogram = models.JSONField(default=list)

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["day", "name", "outcome"], name="graceful_hook_rollup_once")]

    def __str__(self) -> str:
        return f"{self.day} {self.name} {self.outcome}: {self.count}"
