"""What the deploy pages show. Imported where one is shown: each worker loads the admin with Django's autodiscovery."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, reverse
from django.utils.cache import add_never_cache_headers
from django.utils.translation import gettext as _

from graceful.admin.job_links import job_link
from graceful.admin.read_only import ReadOnlyAdmin
from graceful.core.records import InFlightJob, utc_now
from graceful.reports.deploys.lines import DeployPage
from graceful.reports.deploys.page import deploy_page
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


def last(model_admin: ReadOnlyAdmin, request: HttpRequest) -> HttpResponse:
    """The deploy that is under way or was last."""
    return _page(model_admin, request, last_material)


def of_release(model_admin: ReadOnlyAdmin, request: HttpRequest, release: str) -> HttpResponse:
    """The deploy in which a release ended or ends."""
    return _page(model_admin, request, lambda living, now: material_of_release(release, living, now), found=True)


def of_report(model_admin: ReadOnlyAdmin, request: HttpRequest, report_id: str) -> HttpResponse:
    """The deploy that a shutdown was part of."""
    return _page(model_admin, request, lambda living, now: material_of_report(report_id, living, now), found=True)


def _page(model_admin: ReadOnlyAdmin, request: HttpRequest, read: Reader, *, found: bool = False) -> HttpResponse:
    if request.method not in ("GET", "HEAD"):
        return HttpResponseNotAllowed(["GET", "HEAD"])
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    page = _read(model_admin, read)
    if page is None and found:
        raise Http404
    context = {
        **model_admin.admin_site.each_context(request),
        "title": page.title if page else _("Last deploy"),
        "subtitle": None,
        "opts": model_admin.opts,
        "media": model_admin.media,
        "page": page,
        "refresh": REFRESH_SECONDS,
        "has_view_permission": True,
    }
    request.current_app = model_admin.admin_site.name
    response = TemplateResponse(request, "admin/graceful/deploy.html", context)
    add_never_cache_headers(response)
    return response


def _read(model_admin: ReadOnlyAdmin, read: Reader) -> DeployPage | None:
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
    link = job_link(model_admin.admin_site.name)
    return deploy_page(
        deploy_of(material),
        states,
        lambda job, queue: link(InFlightJob(job, "", queue)),
        lambda label: _release_link(model_admin, label),
    )


def _release_link(model_admin: ReadOnlyAdmin, label: str) -> str:
    name = "admin:graceful_lastdeploy_release"
    try:
        return reverse(name, args=(quote(label),), current_app=model_admin.admin_site.name)
    except NoReverseMatch:  # A label with a line break, which no address can have.
        return ""
