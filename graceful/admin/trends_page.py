"""What the page ``Trends`` shows; loaded when it is."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from graceful.admin.read_only import PAGE_SECONDS, ReadOnlyAdmin, reap_for_page
from graceful.models import NAME_LENGTH
from graceful.reports.advice import advice_for
from graceful.reports.rollup import MOST_UNCOUNTED, uncounted
from graceful.reports.sources import page_archiver
from graceful.reports.trends import RANGES, trends

DEFAULT_DAYS = 30


def show(model_admin: ReadOnlyAdmin, request: HttpRequest) -> HttpResponse:
    """The response to a request for the page."""
    if request.method not in ("GET", "HEAD"):
        return HttpResponseNotAllowed(["GET", "HEAD"])
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    page_archiver.run(PAGE_SECONDS, reap_for_page)
    asked = request.GET.get("days", "")
    days = int(asked) if asked in map(str, RANGES) else DEFAULT_DAYS
    context = {
        **model_admin.admin_site.each_context(request),
        "title": _("Trends"),
        "subtitle": None,
        "opts": model_admin.opts,
        "media": model_admin.media,
        "has_view_permission": True,
        "page": trends(days, request.GET.get("hook", "")[:NAME_LENGTH]),
        "advice": advice_for(),
        "uncounted": _uncounted(),
        "ranges": [(each, ngettext("%(days)d day", "%(days)d days", each) % {"days": each}) for each in RANGES],
    }
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(request, "admin/graceful/trends.html", context)


def _uncounted() -> str:
    """What the page does not show yet, as after an upgrade; empty if that is nothing."""
    waiting = uncounted()
    if waiting >= MOST_UNCOUNTED:
        return _("Many reports are not counted here yet. manage.py archive_reports does it at once.")
    text = ngettext("%(number)d report is not counted yet.", "%(number)d reports are not counted yet.", waiting)
    return text % {"number": waiting} if waiting else ""
