"""The page ``Trends`` in the admin: a row in the index, from the roll-ups alone."""

from __future__ import annotations

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from graceful.admin.read_only import PAGE_SECONDS, ReadOnlyAdmin, reap_for_page
from graceful.models import NAME_LENGTH, ShutdownRollup
from graceful.reports.rollup import MOST_UNCOUNTED, uncounted
from graceful.reports.sources import page_archiver

DEFAULT_DAYS = 30


@admin.register(ShutdownRollup)
class TrendsAdmin(ReadOnlyAdmin):
    """The list of this model is the page of trends; nobody needs to see a single row of it."""

    class Media:
        css = {"all": ("graceful/admin.css", "graceful/trends.css")}

    def get_urls(self) -> list[URLPattern]:
        changelist = f"{self.opts.app_label}_{self.opts.model_name}_changelist"
        return [path("", self.admin_site.admin_view(self.trends_view), name=changelist)]

    # Not in a request's transaction: while that one reads, SQLite could not add up reports.
    @transaction.non_atomic_requests
    def trends_view(self, request: HttpRequest) -> HttpResponse:
        """The trends of 7, 30 or 90 days, the advice, and one hook day by day if one is chosen."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if not self.has_view_permission(request):
            raise PermissionDenied
        from graceful.reports.advice import advice_for
        from graceful.reports.trends import RANGES, trends

        page_archiver.run(PAGE_SECONDS, reap_for_page)
        asked = request.GET.get("days", "")
        days = int(asked) if asked in map(str, RANGES) else DEFAULT_DAYS
        context = {
            **self.admin_site.each_context(request),
            "title": _("Trends"),
            "subtitle": None,
            "opts": self.opts,
            "media": self.media,
            "has_view_permission": True,
            "page": trends(days, request.GET.get("hook", "")[:NAME_LENGTH]),
            "advice": advice_for(),
            "uncounted": _uncounted(),
            "ranges": [(each, ngettext("%(days)d day", "%(days)d days", each) % {"days": each}) for each in RANGES],
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/graceful/trends.html", context)


def _uncounted() -> str:
    """What the page does not show yet, as after an upgrade; empty if that is nothing."""
    waiting = uncounted()
    if waiting >= MOST_UNCOUNTED:
        return _("Many reports are not counted here yet. manage.py archive_reports does it at once.")
    text = ngettext("%(number)d report is not counted yet.", "%(number)d reports are not counted yet.", waiting)
    return text % {"number": waiting} if waiting else ""
