"""Names by which the list finds reports: queues, and exit hooks that failed."""

from typing import Any

import django.db.models.deletion
from django.db import migrations, models

BATCH = 1000


def add_keywords(apps: Any, schema_editor: Any) -> None:
    """Of the reports that are there already, as ``graceful.reports.rows.keywords_of`` makes them."""
    alias = schema_editor.connection.alias
    report_model = apps.get_model("graceful", "ShutdownReport")
    hook_model = apps.get_model("graceful", "ReportedHook")
    keyword_model = apps.get_model("graceful", "ReportKeyword")
    after = ""
    while reports := list(report_model.objects.using(alias).filter(pk__gt=after).order_by("pk")[:BATCH]):
        after = reports[-1].pk
        hooks = hook_model.objects.using(alias).filter(
            report__gte=reports[0].pk, report__lte=after, outcome__in=("failed", "timed_out")
        )
        failed: dict[str, list[str]] = {}
        for report_id, name in hooks.values_list("report_id", "name"):
            failed.setdefault(report_id, []).append(name)
        keyword_model.objects.using(alias).bulk_create(
            keyword_model(
                report_id=report.pk, kind=kind, value=value, happened_at=report.happened_at, outcome=report.outcome
            )
            for report in reports
            for kind, names in (("queue", report.queues), ("failed_hook", failed.get(report.pk, ())))
            for value in dict.fromkeys(str(name)[:255] for name in names)
        )


class Migration(migrations.Migration):
    dependencies = [
        ("graceful", "0002_seeing"),
    ]

    operations = [
        migrations.CreateModel(
            name="ReportKeyword",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("kind", models.CharField(max_length=32)),
                ("value", models.CharField(max_length=255)),
                ("happened_at", models.DateTimeField()),
                ("outcome", models.CharField(max_length=32, null=True)),
                (
                    "report",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="keywords",
                        to="graceful.shutdownreport",
                    ),
                ),
            ],
            options={
                "default_permissions": (),
                "indexes": [
                    models.Index(fields=["kind", "value", "-happened_at", "-report"], name="graceful_by_keyword"),
                    models.Index(
                        fields=["kind", "value", "outcome", "-happened_at", "-report"],
                        name="graceful_keyword_outcome",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("report", "kind", "value"), name="graceful_keyword_once")
                ],
            },
        ),
        migrations.RunPython(add_keywords, migrations.RunPython.noop, elidable=True),
    ]
