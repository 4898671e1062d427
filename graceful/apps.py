"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from graceful.checks import register_checks


class GracefulConfig(AppConfig):
    """Reports, their admin page, and the system checks."""

    name = "graceful"
    label = "graceful"
    verbose_name = _("Graceful shutdown")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        register_checks()
