"""Deploys in the admin: the last one, that of each release, and the one that a shutdown was part of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils.cache import add_never_cache_headers
from django.utils.translation import gettext as _

from graceful.admin.job_links import job_link
from graceful.admin.read_only import ReadOnlyAdmin
from graceful.core.records import InFlightJob, utc_now
from graceful.models import ID_LENGTH, LastDeploy
from graceful.reports.deploys.page import DeployPage, deploy_page
from graceful.reports.deploys.projection import deploy_of
from graceful.reports.deploys.records import Material
from graceful.reports.deploys.rows import (
    Living,
    last_material,
    material_of_release,
    material_of_report,
)
from graceful.reports.releases import note_living, release_states
from graceful.reports.sources import page_archiver
from graceful.worker.cluster.whole_fleet import page_fleet, where_now

ARCHIVE_SECONDS = 0.5
FLEET_SECONDS = 1.0
JOBS_SECONDS = 0.3
REFRESH_SECONDS = 5
"""How often a page without JavaScript is loaded again while the deploy is under way."""

Reader = Callable[[Living, datetime], Material | None]


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
        ]

    # Not in a request's transaction: while that one reads, SQLite could not store reports.
    @transaction.non_atomic_requests
    def last_view(self, request: HttpRequest) -> HttpResponse:
        """The deploy that is under way or was last."""
        return self._page(request, last_material)

    @transaction.non_atomic_requests
    def release_view(self, request: HttpRequest, label: str) -> HttpResponse:
        """The deploy in which a release ended or ends."""
        release = unquote(label)
        if "\x00" in release:
            raise Http404
        return self._page(request, lambda living, now: material_of_release(release, living, now), found=True)

    @transaction.non_atomic_requests
    def report_view(self, request: HttpRequest, report_id: str) -> HttpResponse:
        """The deploy that a shutdown was part of."""
        wanted = unquote(report_id)
        if "\x00" in wanted or len(wanted) > ID_LENGTH:
            raise Http404
        return self._page(request, lambda living, now: material_of_report(wanted, living, now), found=True)

    def _page(self, request: HttpRequest, read: Reader, *, found: bool = False) -> HttpResponse:
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if not self.has_view_permission(request):
            raise PermissionDenied
        page = self._read(request, read)
        if page is None and found:
            raise Http404
        context = {
            **self.admin_site.each_context(request),
            "title": page.title if page else _("Last deploy"),
            "subtitle": None,
            "opts": self.opts,
            "media": self.media,
            "page": page,
            "refresh": REFRESH_SECONDS,
            "has_view_permission": True,
        }
        request.current_app = self.admin_site.name
        response = TemplateResponse(request, "admin/graceful/deploy.html", context)
        add_never_cache_headers(response)
        return response

    def _read(self, request: HttpRequest, read: Reader) -> DeployPage | None:
        # Reports wait to be archived, but nobody is reaped here: a page that refreshes itself is not to do so.
        page_archiver.run(ARCHIVE_SECONDS)
        living = page_fleet.read(FLEET_SECONDS)
        material = read(living, utc_now())
        if material is None:
            return None
        note_living(living.workers, material.known)
        if living.known:
            material = material.with_jobs(where_now(material.interrupted, JOBS_SECONDS))
        states = release_states(living.workers, living.known)
        link = job_link(self.admin_site.name)
        return deploy_page(
            deploy_of(material), states, lambda job, queue: link(InFlightJob(job, "", queue)), self._release_link
        )

    def _release_link(self, label: str) -> str:
        name = "admin:graceful_lastdeploy_release"
        try:
            return reverse(name, args=(quote(label),), current_app=self.admin_site.name)
        except NoReverseMatch:  # A label with a line break, which no address can have.
            return ""
