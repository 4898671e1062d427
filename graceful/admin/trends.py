"""The page ``Trends`` in the admin: a row in the index, from the roll-ups alone."""

from __future__ import annotations

from django.contrib import admin
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path

from graceful.admin.read_only import ReadOnlyAdmin
from graceful.models import ShutdownRollup


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
        from graceful.admin import trends_page

        return trends_page.show(self, request)
