"""The last report, the last deploy and each release as JSON, for programs. In your ``urls.py``::

path("graceful/", include("graceful.urls"))

Who may read it, and what it contains, is in ``docs/json.md``.
"""

from __future__ import annotations

from importlib import import_module

from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path

app_name = "graceful"


# Guarded by the views themselves; and not in a request's transaction: while that one reads, SQLite could not store
# reports.
@login_not_required
@transaction.non_atomic_requests
def _view(request: HttpRequest, name: str, **arguments: str) -> HttpResponse:
    """A view of :mod:`graceful.views`, imported when it is asked for: the system checks have each worker load URLs."""
    response: HttpResponse = getattr(import_module("graceful.views"), name)(request, **arguments)
    return response


urlpatterns = [
    path("report/", _view, {"name": "last_report"}, name="last-report"),
    path("deploy/", _view, {"name": "last_deploy"}, name="last-deploy"),
    path("release/<path:label>/", _view, {"name": "release"}, name="release"),
]
