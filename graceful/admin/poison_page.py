"""What the page ``Poison jobs`` shows, and its button; loaded when it is shown."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.cache import add_never_cache_headers
from django.utils.translation import gettext as _
from redis import RedisError

from graceful.admin.job_links import JobAddress, job_address
from graceful.core.attempts import Attempt
from graceful.core.text import cut, one_line
from graceful.labels import label
from graceful.models import PoisonJob
from graceful.reports.rows import local_time
from graceful.reports.sources import journals
from graceful.reports.text import megabytes_text, printable_text
from graceful.worker.cluster.poison import MOST_SHOWN, REQUEUED, Poison, poison_jobs, requeue_poison

if TYPE_CHECKING:
    from graceful.admin.poison import PoisonJobAdmin

log = logging.getLogger("graceful.admin")
REQUEUED_BY = "Poison job %s requeued by %s"
UNREACHABLE = "Poison jobs without a Redis server: %s"
REDIS_SECONDS = 2.0
LONGEST_ID = 8192
SHOWN_ID = 200
LOGGED = "Requeued; its interruptions are counted from 0."
"""In the history of the admin, as Django stores its own messages: in English."""


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """How one attempt ended."""

    at: str
    words: str
    facts: tuple[str, ...]
    stack: str


@dataclass(frozen=True, slots=True)
class PoisonRow:
    """One job of the list."""

    id: str
    shown_id: str
    link: str
    function: str
    queue: str
    at: str
    interruptions: int
    attempts: tuple[AttemptRow, ...]


def show(model_admin: PoisonJobAdmin, request: HttpRequest) -> HttpResponse:
    """The response to a request for the page."""
    if request.method not in ("GET", "HEAD"):
        return HttpResponseNotAllowed(["GET", "HEAD"])
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    found, reached = _read()
    link = job_address(model_admin.admin_site.name)
    context = {
        **model_admin.admin_site.each_context(request),
        "title": _("Poison jobs"),
        "subtitle": None,
        "opts": model_admin.opts,
        "media": model_admin.media,
        "has_view_permission": True,
        "jobs": [_row(poison, link) for poison in found[:MOST_SHOWN]],
        "reached": reached,
        "may_requeue": model_admin.has_requeue_permission(request),
    }
    request.current_app = model_admin.admin_site.name
    response = TemplateResponse(request, "admin/graceful/poison.html", context)
    add_never_cache_headers(response)
    return response


def requeue(model_admin: PoisonJobAdmin, request: HttpRequest) -> HttpResponse:
    """The response to the button of one job."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    if not model_admin.has_requeue_permission(request):
        raise PermissionDenied
    job_id = request.POST.get("job", "")[:LONGEST_ID]
    found = _requeue(job_id)
    shown = one_line(cut(job_id, SHOWN_ID))
    if found == REQUEUED:
        log.info(REQUEUED_BY, shown, one_line(request.user.get_username()))
        model_admin.log_change(request, PoisonJob(pk=shown), LOGGED)
    level = messages.SUCCESS if found == REQUEUED else messages.WARNING
    model_admin.message_user(request, _outcome(found) % {"job": shown, "status": one_line(found)}, level)
    site = model_admin.admin_site.name
    return HttpResponseRedirect(reverse("admin:graceful_poisonjob_changelist", current_app=site))


def _read() -> tuple[list[Poison], bool]:
    """The poison jobs of all servers, the newest first, and whether every server was reached."""
    found: list[Poison] = []
    reached = True
    for journal in journals(REDIS_SECONDS):
        try:
            found += poison_jobs(journal.connection)
        except (RedisError, OSError) as error:
            reached = False
            log.info(UNREACHABLE, error)
        finally:
            journal.connection.close()
    return sorted(found, key=lambda poison: poison.at, reverse=True), reached


def _requeue(job_id: str) -> str:
    """What :func:`requeue_poison` says on the server that has the job; empty if one could not be reached."""
    found = "not poison"
    for journal in journals(REDIS_SECONDS):
        try:
            said = requeue_poison(journal.connection, job_id)
        except (RedisError, OSError) as error:
            log.info(UNREACHABLE, error)
            found = ""
            continue
        finally:
            journal.connection.close()
        if said != "not poison":
            return said
    return found


def _outcome(found: str) -> str:
    words = {
        REQUEUED: _("Job %(job)s is at the end of its queue; its interruptions are counted from 0."),
        "not poison": _("Job %(job)s is not on the list any more."),
        "gone": _("Job %(job)s has been deleted."),
        "rate limited": _(
            "Job %(job)s has a rate limit: only RQ can requeue it, for instance on the pages of django-rq."
        ),
        "": _("Job %(job)s was not requeued: a Redis server is unreachable."),
    }
    return words.get(found) or _("Job %(job)s is not failed any more, its status is %(status)s.")


def _row(poison: Poison, link: JobAddress) -> PoisonRow:
    return PoisonRow(
        id=poison.job_id,
        shown_id=one_line(cut(poison.job_id, SHOWN_ID)),
        link=link(poison.queue, poison.job_id),
        function=one_line(poison.function) or "-",
        queue=one_line(poison.queue),
        at=f"{local_time(poison.at):%Y-%m-%d %H:%M:%S}",
        interruptions=poison.interruptions,
        attempts=tuple(_attempt(attempt) for attempt in reversed(poison.evidence)),
    )


def _attempt(attempt: Attempt) -> AttemptRow:
    facts = (
        _("worker %(worker)s on %(host)s")
        % {"worker": one_line(attempt.worker), "host": one_line(attempt.hostname) or "-"},
        _("ended by %(signal)s") % {"signal": one_line(attempt.signal)} if attempt.signal else "",
        _("probably out of memory") if attempt.out_of_memory else "",
        "" if attempt.peak_bytes is None else _("peak memory %(size)s") % {"size": megabytes_text(attempt.peak_bytes)},
    )
    return AttemptRow(
        at=f"{local_time(attempt.at):%Y-%m-%d %H:%M:%S}",
        words=label(attempt.ended),
        facts=tuple(filter(None, facts)),
        stack=printable_text(attempt.stack),
    )
