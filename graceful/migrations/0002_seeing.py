"""What pages of deploys, trends and advice need: grace periods, progress, second runs, releases, roll-ups."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("graceful", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="HookRollup",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("day", models.DateField()),
                ("name", models.CharField(max_length=255)),
                ("outcome", models.CharField(max_length=32)),
                ("count", models.BigIntegerField(default=0)),
                ("seconds", models.FloatField(default=0.0)),
                ("histogram", models.JSONField(default=list)),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="Release",
            fields=[
                ("label", models.CharField(max_length=255, primary_key=True, serialize=False)),
                (
                    "started_at",
                    models.DateTimeField(
                        help_text="The first start of a worker of this release, or when it was marked."
                    ),
                ),
            ],
            options={
                "verbose_name": "release",
                "verbose_name_plural": "releases",
                "ordering": ["-started_at", "-label"],
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="ShutdownRollup",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("day", models.DateField()),
                ("release", models.CharField(blank=True, max_length=255)),
                ("outcome", models.CharField(max_length=32)),
                ("reason", models.CharField(max_length=32)),
                ("count", models.BigIntegerField(default=0)),
                ("jobs_finished", models.BigIntegerField(default=0)),
                ("jobs_failed", models.BigIntegerField(default=0)),
                ("jobs_interrupted", models.BigIntegerField(default=0)),
                ("drain_seconds", models.FloatField(default=0.0)),
                ("drain_histogram", models.JSONField(default=list)),
                ("hooks_seconds", models.FloatField(default=0.0)),
                ("hooks_histogram", models.JSONField(default=list)),
                ("total_seconds", models.FloatField(default=0.0)),
                ("total_histogram", models.JSONField(default=list)),
            ],
            options={
                "verbose_name": "trends",
                "verbose_name_plural": "trends",
                "default_permissions": (),
            },
        ),
        migrations.AddField(
            model_name="reportedjob",
            name="again_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="reportedjob",
            name="again_ended_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="reportedjob",
            name="again_outcome",
            field=models.CharField(blank=True, db_default="", default="", max_length=32),
        ),
        migrations.AddField(
            model_name="reportedjob",
            name="again_release",
            field=models.CharField(blank=True, db_default="", default="", max_length=255),
        ),
        migrations.AddField(
            model_name="reportedjob",
            name="again_worker",
            field=models.CharField(blank=True, db_default="", default="", max_length=255),
        ),
        migrations.AddField(
            model_name="reportedjob",
            name="progress_done",
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="reportedjob",
            name="progress_total",
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="reportedjob",
            name="started_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="shutdownreport",
            name="grace_period",
            field=models.FloatField(help_text="GRACEFUL_TIMEOUT, in seconds.", null=True, verbose_name="grace period"),
        ),
        migrations.AddField(
            model_name="shutdownreport",
            name="hooks_timeout",
            field=models.FloatField(null=True, verbose_name="hooks timeout"),
        ),
        migrations.AddField(
            model_name="shutdownreport",
            name="interrupt_timeout",
            field=models.FloatField(null=True, verbose_name="interrupt timeout"),
        ),
        migrations.AddField(
            model_name="shutdownreport",
            name="rolled_up",
            field=models.BooleanField(db_default=False, default=False, editable=False),
        ),
        migrations.AddIndex(
            model_name="shutdownreport",
            index=models.Index(condition=models.Q(("rolled_up", False)), fields=["id"], name="graceful_not_rolled_up"),
        ),
        migrations.AddConstraint(
            model_name="hookrollup",
            constraint=models.UniqueConstraint(fields=("day", "name", "outcome"), name="graceful_hook_rollup_once"),
        ),
        migrations.AddIndex(
            model_name="release",
            index=models.Index(fields=["-started_at", "-label"], name="graceful_releases"),
        ),
        migrations.AddConstraint(
            model_name="shutdownrollup",
            constraint=models.UniqueConstraint(
                fields=("day", "release", "outcome", "reason"), name="graceful_rollup_once"
            ),
        ),
    ]
