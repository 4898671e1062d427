"""What the deploy pages show. Imported where one is shown: each worker loads the admin with Django's autodiscovery."""

from __future__ import annotations

import functools

from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, reverse
from django.utils.cache import add_never_cache_headers
from django.utils.translation import gettext as _

from graceful.admin.job_links import job_link
from graceful.admin.read_only import TELL_PERMISSION, ReadOnlyAdmin
from graceful.core.records import InFlightJob
from graceful.reports.deploys.lines import DeployPage
from graceful.reports.deploys.page import deploy_page
from graceful.reports.deploys.rows import (
    last_material,
    material_of_release,
    material_of_report,
)
from graceful.reports.releases import release_states
from graceful.worker.cluster.deploy_now import Reader, deploy_now

REFRESH_SECONDS = 5
"""How often a page without JavaScript is loaded again while the deploy is under way."""


def last(model_admin: ReadOnlyAdmin, request: HttpRequest) -> HttpResponse:
    """The deploy that is under way or was last."""
    return _page(model_admin, request, last_material)


def of_release(model_admin: ReadOnlyAdmin, request: HttpRequest, release: str) -> HttpResponse:
    """The deploy in which a release ended or ends."""
    return _page(model_admin, request, functools.partial(material_of_release, release), found=True)


def of_report(model_admin: ReadOnlyAdmin, request: HttpRequest, report_id: str) -> HttpResponse:
    """The deploy that a shutdown was part of."""
    return _page(model_admin, request, functools.partial(material_of_report, report_id), found=True)


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
        "may_tell": request.user.has_perm(TELL_PERMISSION),
        "has_view_permission": True,
    }
    request.current_app = model_admin.admin_site.name
    response = TemplateResponse(request, "admin/graceful/deploy.html", context)
    add_never_cache_headers(response)
    return response


def _read(model_admin: ReadOnlyAdmin, read: Reader) -> DeployPage | None:
    deploy = deploy_now(read)
    if deploy is None:
        return None
    states = release_states(deploy.material.living, deploy.material.living_known)
    link = job_link(model_admin.admin_site.name)
    return deploy_page(
        deploy,
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
