"""What the pages of this package have in common: nobody changes anything, and waiting reports are archived first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from redis import Redis

from graceful.admin.last_report import last_report
from graceful.conf import settings
from graceful.models import ShutdownReport
from graceful.reports.sources import page_archiver
from graceful.worker.cluster.reaper import reap

PAGE_SECONDS = 0.5
"""How long a page waits for reports that are not archived yet."""
TELL_PERMISSION = "graceful.quiet_workers"
"""Whoever has it may make a living worker quiet. Reports themselves nobody may change."""


def reap_for_page(connection: Redis) -> int:
    return reap(connection, settings(), "the admin")


if TYPE_CHECKING:
    ReadOnlyBase = admin.ModelAdmin[ShutdownReport]
else:
    ReadOnlyBase = admin.ModelAdmin


class ReadOnlyAdmin(ReadOnlyBase):
    """Nobody may add, change or delete a report, not even a superuser: it is evidence."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.has_perm("graceful.view_shutdownreport")

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> ShutdownReport | None:
        # PostgreSQL takes no NUL.
        return None if "\x00" in object_id else super().get_object(request, object_id, from_field)

    def redirect_to_last(self, request: HttpRequest) -> HttpResponse:
        """To the worst of the newest reports, even if it still waits in Redis; to the list if there is none."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        page_archiver.run(PAGE_SECONDS, reap_for_page)
        last = last_report()
        site = self.admin_site.name
        if last is None:
            self.message_user(request, _("There is no shutdown report yet."), messages.INFO)
            return HttpResponseRedirect(reverse("admin:graceful_shutdownreport_changelist", current_app=site))
        url = reverse("admin:graceful_shutdownreport_change", args=(quote(last),), current_app=site)
        return HttpResponseRedirect(url)


def form_context(model_admin: ReadOnlyAdmin) -> dict[str, Any]:
    """What a template that extends Django's change form may ask for, themes for the admin included."""
    return {
        "opts": model_admin.opts,
        "app_label": model_admin.opts.app_label,
        "subtitle": None,
        "media": model_admin.media,
        "adminform": None,
        "inline_admin_formsets": [],
        "errors": None,
        "add": False,
        "change": True,
        "save_as": False,
        "save_on_top": False,
        "is_popup": False,
        "to_field": None,
        "has_view_permission": True,
        "has_add_permission": False,
        "has_change_permission": False,
        "has_delete_permission": False,
        "has_editable_inline_admin_formsets": False,
        "has_file_field": False,
        "has_absolute_url": False,
        "show_save": False,
        "show_close": False,
    }
