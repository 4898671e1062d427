"""Deploys in the admin: the last one, that of each release, and the one that a shutdown was part of."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path

from graceful.admin.read_only import ReadOnlyAdmin
from graceful.models import ID_LENGTH, LastDeploy


@admin.register(LastDeploy)
class LastDeployAdmin(ReadOnlyAdmin):
    """A row in the admin's index that leads straight to the last deploy, and the pages of the others."""

    class Media:
        css = {"all": ("graceful/admin.css", "graceful/deploys.css")}
        js = ("graceful/deploys.js",)

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        wrap = self.admin_site.admin_view
        return [
            path("", wrap(self.last_view), name=f"{name}_changelist"),
            path("release/<path:label>/", wrap(self.release_view), name=f"{name}_release"),
            path("of/<path:report_id>/", wrap(self.report_view), name=f"{name}_of"),
            path("worker/<path:report_id>/quiet/", wrap(self.tell_view), {"told": "quiet"}, name=f"{name}_quiet"),
            path("worker/<path:report_id>/resume/", wrap(self.tell_view), {"told": "resume"}, name=f"{name}_resume"),
        ]

    # Not in a request's transaction: while that one reads, SQLite could not store reports.
    @transaction.non_atomic_requests
    def last_view(self, request: HttpRequest) -> HttpResponse:
        """The deploy that is under way or was last."""
        from graceful.admin import deploy_pages

        return deploy_pages.last(self, request)

    @transaction.non_atomic_requests
    def release_view(self, request: HttpRequest, label: str) -> HttpResponse:
        """The deploy in which a release ended or ends."""
        release = unquote(label)
        if "\x00" in release:
            raise Http404
        from graceful.admin import deploy_pages

        return deploy_pages.of_release(self, request, release)

    @transaction.non_atomic_requests
    def report_view(self, request: HttpRequest, report_id: str) -> HttpResponse:
        """The deploy that a shutdown was part of."""
        wanted = unquote(report_id)
        if "\x00" in wanted or len(wanted) > ID_LENGTH:
            raise Http404
        from graceful.admin import deploy_pages

        return deploy_pages.of_report(self, request, wanted)

    @transaction.non_atomic_requests
    def tell_view(self, request: HttpRequest, report_id: str, told: str) -> HttpResponse:
        """Make one living worker quiet, or have it take jobs again, after a confirmation."""
        wanted = unquote(report_id)
        if "\x00" in wanted or len(wanted) > ID_LENGTH:
            raise Http404
        from graceful.admin import tell_page

        return tell_page.tell(self, request, wanted, told)
