"""The last report, the last deploy and each release as JSON, for programs. In your ``urls.py``::

path("graceful/", include("graceful.urls"))

Who may read it, and what it contains, is in ``docs/json.md``.
"""

from __future__ import annotations

from django.urls import path

from graceful import views

app_name = "graceful"
urlpatterns = [
    path("report/", views.last_report, name="last-report"),
    path("deploy/", views.last_deploy, name="last-deploy"),
    path("release/<path:label>/", views.release, name="release"),
]
