"""A row in the admin's index that leads to the last deploy; no table changes."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("graceful", "0003_list"),
    ]

    operations = [
        migrations.CreateModel(
            name="LastDeploy",
            fields=[],
            options={
                "verbose_name": "last deploy",
                "verbose_name_plural": "last deploy",
                "proxy": True,
                "default_permissions": (),
                "indexes": [],
                "constraints": [],
            },
            bases=("graceful.shutdownreport",),
        ),
    ]
