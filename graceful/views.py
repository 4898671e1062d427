"""JSON for programs: read-only, never cached, for users with the permission or whoever has the token."""

from __future__ import annotations

import functools
import hmac
from collections.abc import Callable
from typing import Any

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.cache import add_never_cache_headers

from graceful.conf import settings
from graceful.models import NAME_LENGTH, ShutdownReport
from graceful.reports.deploys import plain
from graceful.reports.deploys.rows import last_material, material_of_release
from graceful.reports.releases import release_state
from graceful.reports.rows import record_of
from graceful.reports.sources import page_archiver
from graceful.worker.cluster.deploy_now import ARCHIVE_SECONDS, deploy_now

PERMISSION = "graceful.view_shutdownreport"
View = Callable[..., HttpResponse]


def _guarded(view: View) -> View:
    """Only GET and HEAD, only for those who may read it, never from a cache."""

    @functools.wraps(view)
    def guarded(request: HttpRequest, **arguments: str) -> HttpResponse:
        if request.method not in ("GET", "HEAD"):
            response: HttpResponse = _error("only GET and HEAD are allowed", 405)
            response["Allow"] = "GET, HEAD"
        elif (refused := _refused(request)) is not None:
            response = refused
        else:
            try:
                response = view(request, **arguments)
            except DatabaseError:
                response = _error("the database is unreachable, or its tables are missing", 503)
        add_never_cache_headers(response)
        response["X-Content-Type-Options"] = "nosniff"
        return response

    return guarded


@_guarded
def last_report(request: HttpRequest) -> HttpResponse:
    """The newest report."""
    page_archiver.run(ARCHIVE_SECONDS)
    newest = ShutdownReport.objects.order_by("-happened_at", "-id").prefetch_related("hooks", "jobs").first()
    if newest is None:
        return _error("there is no shutdown report yet", 404)
    return JsonResponse(plain.report(record_of(newest)))


@_guarded
def last_deploy(request: HttpRequest) -> HttpResponse:
    """The deploy that is under way or was last."""
    deploy = deploy_now(last_material)
    if deploy is None:
        return _error("no worker has been asked to stop yet", 404)
    return JsonResponse(plain.deploy(deploy))


@_guarded
def release(request: HttpRequest, label: str) -> HttpResponse:
    """One release: its state, and the deploy in which it ended."""
    if "\x00" in label or len(label) > NAME_LENGTH:
        return _error("there is no such release", 404)
    deploy = deploy_now(functools.partial(material_of_release, label))
    if deploy is None:
        return _error("there is no such release", 404)
    return JsonResponse(plain.release(release_state(label, deploy), deploy if deploy.members else None))


def _refused(request: HttpRequest) -> HttpResponse | None:
    """The answer to somebody who may not read it; None to others."""
    scheme, _space, given = request.headers.get("Authorization", "").partition(" ")
    token = settings().json_token
    if scheme.lower() == "bearer":
        # Bytes, since compare_digest takes only ASCII as text.
        if token is not None and hmac.compare_digest(_bytes(given.strip()), _bytes(token)):
            return None
        return _unauthorized("the token is wrong")
    user: Any = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return _unauthorized("log in, or send a token")
    return None if user.has_perm(PERMISSION) else _error(f"the permission {PERMISSION} is missing", 403)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _unauthorized(why: str) -> HttpResponse:
    response = _error(why, 401)
    response["WWW-Authenticate"] = 'Bearer realm="graceful"'
    return response


def _error(why: str, status: int) -> HttpResponse:
    return JsonResponse(plain.error(why), status=status)
