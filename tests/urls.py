"""URLs of the test project: the admin, and django-rq's own pages."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from graceful.metrics import prometheus_metrics

urlpatterns = [
    path("admin/", admin.site.urls),
    path("metrics/graceful/", prometheus_metrics),
    path("graceful/", include("graceful.urls")),
    path("django-rq/", include("django_rq.urls")),
]
