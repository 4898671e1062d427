"""Why a worker was recycled, its peak memory, and a row with a permission for poison jobs."""

from django.db import migrations, models

import graceful.models


class Migration(migrations.Migration):
    dependencies = [
        ("graceful", "0004_last_deploy"),
    ]

    operations = [
        migrations.AddField(
            model_name="shutdownreport",
            name="horse_peak_bytes",
            field=models.BigIntegerField(null=True, verbose_name="peak memory of a work horse"),
        ),
        migrations.AddField(
            model_name="shutdownreport",
            name="peak_bytes",
            field=models.BigIntegerField(null=True, verbose_name="peak memory of the worker"),
        ),
        migrations.AddField(
            model_name="shutdownreport",
            name="recycled",
            field=models.CharField(
                choices=graceful.models.recycled_choices,
                help_text='The reason is then stored as "max jobs", which earlier releases know.',
                max_length=32,
                null=True,
                verbose_name="recycled for",
            ),
        ),
        migrations.AddIndex(
            model_name="shutdownreport",
            index=models.Index(
                condition=models.Q(("recycled__isnull", False)),
                fields=["recycled", "-happened_at", "-id"],
                name="graceful_by_recycled",
            ),
        ),
        migrations.AlterModelOptions(
            name="shutdownreport",
            options={
                "default_permissions": ("view",),
                "ordering": ["-happened_at", "-id"],
                "permissions": [("quiet_workers", "Can make workers quiet, and have them resume")],
                "verbose_name": "shutdown report",
                "verbose_name_plural": "shutdown reports",
            },
        ),
        migrations.CreateModel(
            name="PoisonJob",
            fields=[],
            options={
                "verbose_name": "poison job",
                "verbose_name_plural": "poison jobs",
                "proxy": True,
                "default_permissions": (),
                "permissions": [("requeue_poison", "Can requeue poison jobs")],
                "indexes": [],
                "constraints": [],
            },
            bases=("graceful.shutdownreport",),
        ),
    ]
