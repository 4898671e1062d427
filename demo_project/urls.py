"""The demo's pages: the admin, in which django-rq shows its queues, and the JSON of the deploys."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("graceful/", include("graceful.urls")),
]
