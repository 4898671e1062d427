"""URLs of the test project: the admin, and django-rq's own pages."""

from __future__ import annotations

from django.apps import apps
from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("django-rq/", include("django_rq.urls"))]
if apps.is_installed("graceful"):  # The benchmarks' stock worker is without it.
    from graceful.metrics import prometheus_metrics

    urlpatterns += [path("metrics/graceful/", prometheus_metrics), path("graceful/", include("graceful.urls"))]
