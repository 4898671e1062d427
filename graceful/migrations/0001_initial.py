"""Tables of the archive."""

import django.db.models.deletion
from django.db import migrations, models

import graceful.models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="ShutdownReport",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False, verbose_name="id")),
                (
                    "happened_at",
                    models.DateTimeField(
                        help_text="When the shutdown was asked for, or else when it ended, or when the worker started.",
                        verbose_name="time",
                    ),
                ),
                ("worker", models.CharField(max_length=255, verbose_name="worker")),
                ("hostname", models.CharField(max_length=255, verbose_name="host")),
                ("pid", models.IntegerField(verbose_name="process id")),
                ("release", models.CharField(blank=True, max_length=255, verbose_name="release")),
                ("queues", models.JSONField(verbose_name="queues")),
                ("worker_class", models.TextField(verbose_name="worker class")),
                (
                    "reason",
                    models.CharField(
                        choices=graceful.models.reason_choices, max_length=32, null=True, verbose_name="reason"
                    ),
                ),
                (
                    "signal",
                    models.CharField(
                        choices=graceful.models.signal_choices, max_length=32, null=True, verbose_name="signal"
                    ),
                ),
                (
                    "outcome",
                    models.CharField(
                        choices=graceful.models.outcome_choices, max_length=32, null=True, verbose_name="outcome"
                    ),
                ),
                ("exit_code", models.IntegerField(null=True, verbose_name="exit code")),
                (
                    "phase",
                    models.CharField(choices=graceful.models.phase_choices, max_length=32, verbose_name="last phase"),
                ),
                ("started_at", models.DateTimeField(verbose_name="started")),
                ("requested_at", models.DateTimeField(null=True, verbose_name="shutdown requested")),
                ("drained_at", models.DateTimeField(null=True, verbose_name="drained")),
                ("ended_at", models.DateTimeField(null=True, verbose_name="ended")),
                ("drain_seconds", models.FloatField(null=True, verbose_name="seconds to drain")),
                ("hooks_seconds", models.FloatField(null=True, verbose_name="seconds in hooks")),
                ("total_seconds", models.FloatField(null=True, verbose_name="seconds in all")),
                ("jobs_finished", models.IntegerField(verbose_name="jobs finished")),
                ("jobs_failed", models.IntegerField(verbose_name="jobs failed")),
                (
                    "hooks_ok",
                    models.IntegerField(help_text="So that a list need not read the hooks.", verbose_name="hooks ok"),
                ),
                ("hooks_total", models.IntegerField(verbose_name="hooks")),
                ("notes", models.TextField(blank=True, verbose_name="notes")),
            ],
            options={
                "verbose_name": "shutdown report",
                "verbose_name_plural": "shutdown reports",
                "ordering": ["-happened_at", "-id"],
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(fields=["-happened_at", "-id"], name="graceful_by_time"),
                    models.Index(fields=["outcome", "-happened_at", "-id"], name="graceful_by_outcome"),
                    models.Index(fields=["reason", "-happened_at", "-id"], name="graceful_by_reason"),
                    models.Index(fields=["signal", "-happened_at", "-id"], name="graceful_by_signal"),
                    models.Index(
                        fields=["worker", "-happened_at", "-id"],
                        name="graceful_by_worker",
                        opclasses=["varchar_pattern_ops", "timestamptz_ops", "varchar_ops"],
                    ),
                    models.Index(
                        fields=["hostname", "-happened_at", "-id"],
                        name="graceful_by_hostname",
                        opclasses=["varchar_pattern_ops", "timestamptz_ops", "varchar_ops"],
                    ),
                    models.Index(
                        fields=["release", "-happened_at", "-id"],
                        name="graceful_by_release",
                        opclasses=["varchar_pattern_ops", "timestamptz_ops", "varchar_ops"],
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="LastShutdownReport",
            fields=[],
            options={
                "verbose_name": "last shutdown report",
                "verbose_name_plural": "last shutdown report",
                "proxy": True,
                "default_permissions": (),
                "indexes": [],
                "constraints": [],
            },
            bases=("graceful.shutdownreport",),
        ),
        migrations.CreateModel(
            name="ReportedJob",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("place", models.IntegerField(help_text="Where it stands in the report, from 0.")),
                ("job_id", models.CharField(max_length=255)),
                ("function", models.TextField()),
                ("queue", models.TextField()),
                ("outcome", models.CharField(choices=graceful.models.job_outcome_choices, max_length=32)),
                ("seconds", models.FloatField(null=True)),
                ("interruptions", models.IntegerField()),
                ("stack", models.TextField(blank=True)),
                (
                    "report",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="jobs",
                        to="graceful.shutdownreport",
                    ),
                ),
            ],
            options={
                "default_permissions": (),
                "indexes": [models.Index(fields=["job_id"], name="graceful_by_job")],
                "constraints": [models.UniqueConstraint(fields=("report", "place"), name="graceful_job_place")],
            },
        ),
        migrations.CreateModel(
            name="ReportedHook",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("place", models.IntegerField(help_text="Where it stands in the report, from 0.")),
                ("name", models.TextField()),
                ("outcome", models.CharField(choices=graceful.models.hook_outcome_choices, max_length=32)),
                ("seconds", models.FloatField()),
                ("timeout", models.FloatField(null=True)),
                ("detail", models.TextField(blank=True)),
                ("error", models.TextField(blank=True)),
                ("traceback", models.TextField(blank=True)),
                (
                    "report",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="hooks",
                        to="graceful.shutdownreport",
                    ),
                ),
            ],
            options={
                "default_permissions": (),
                "constraints": [models.UniqueConstraint(fields=("report", "place"), name="graceful_hook_place")],
            },
        ),
    ]
