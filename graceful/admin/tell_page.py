"""The page that asks before a worker is made quiet or resumed, and does it. Imported where it is shown."""

from __future__ import annotations

import time

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.cache import add_never_cache_headers
from django.utils.translation import gettext as _

from graceful.admin.read_only import TELL_PERMISSION, ReadOnlyAdmin
from graceful.core.text import one_line
from graceful.reports.rows import rows_of
from graceful.reports.sources import journals
from graceful.threads import bounded
from graceful.worker.cluster.worker_commands import Command, Selection, Target, find, look_again

REDIS_SECONDS = 1.0
CONFIRM_SECONDS = 2.0
"""How long the page waits for the worker to say that it has followed."""
LOOK_SECONDS = 0.1


def tell(model_admin: ReadOnlyAdmin, request: HttpRequest, report_id: str, told: str) -> HttpResponse:
    """Ask, and at a POST do it.

    Args:
        report_id: of the worker's report: a later worker of the same name is not meant.
        told: ``"quiet"`` or ``"resume"``.
    """
    if request.method not in ("GET", "HEAD", "POST"):
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    if not (model_admin.has_view_permission(request) and request.user.has_perm(TELL_PERMISSION)):
        raise PermissionDenied
    command, site = Command(told), model_admin.admin_site
    back = reverse("admin:graceful_lastdeploy_changelist", current_app=site.name)
    looking = bounded(lambda: find(journals(REDIS_SECONDS), Selection(ids=frozenset({report_id}))), 2 * REDIS_SECONDS)
    targets, failures = looking.value or ([], [])
    if not targets:
        text = _("Redis is unreachable.") if failures or looking.error else _("This worker has ended meanwhile.")
        messages.warning(request, text)
        return HttpResponseRedirect(back)
    (target, *_others) = targets
    worker = one_line(target.worker.report.worker)
    if request.method == "POST":
        _do(model_admin, request, target, command)
        return HttpResponseRedirect(back)
    title = _("Make worker %(worker)s quiet") if command is Command.QUIET else _("Resume worker %(worker)s")
    context = {
        **site.each_context(request),
        "title": title % {"worker": worker},
        "subtitle": None,
        "opts": model_admin.opts,
        "media": model_admin.media,
        "quiet": command is Command.QUIET,
        "worker": worker,
        "host": one_line(target.worker.report.hostname),
        "release": one_line(target.worker.report.release),
        "back": back,
    }
    request.current_app = site.name
    response = TemplateResponse(request, "admin/graceful/tell.html", context)
    add_never_cache_headers(response)
    return response


def _do(model_admin: ReadOnlyAdmin, request: HttpRequest, target: Target, command: Command) -> None:
    report, quiet = target.worker.report, command is Command.QUIET
    words = {"worker": one_line(report.worker)}
    doing = bounded(lambda: _followed(target, command), CONFIRM_SECONDS + 2 * REDIS_SECONDS)
    # The report is not archived yet; the entry is there when it is.
    model_admin.log_change(
        request, rows_of(report).report, _("Asked to be quiet.") if quiet else _("Asked to take jobs again.")
    )
    if doing.error is not None:
        messages.error(request, _("Redis is unreachable."))
    elif not doing.value:
        text = _("Worker %(worker)s has not followed yet: it is of an earlier version, or is stuck.")
        messages.warning(request, text % words)
    else:
        text = _("Worker %(worker)s takes no new job.") if quiet else _("Worker %(worker)s takes jobs again.")
        messages.success(request, text % words)


def _followed(target: Target, command: Command) -> bool:
    until = time.monotonic() + CONFIRM_SECONDS
    while True:
        target.tell(command)
        look_again([target])
        if target.has_followed(command) or time.monotonic() >= until:
            return target.has_followed(command)
        time.sleep(LOOK_SECONDS)
