"""Poison jobs in the admin: a list, and a button for who may requeue them."""

from __future__ import annotations

from django.contrib import admin
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path

from graceful.admin.read_only import ReadOnlyAdmin
from graceful.models import PoisonJob


@admin.register(PoisonJob)
class PoisonJobAdmin(ReadOnlyAdmin):
    """The list of this model is read from Redis: nothing of it is in the database."""

    class Media:
        css = {"all": ("graceful/admin.css",)}

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        wrap = self.admin_site.admin_view
        return [
            path("", wrap(self.list_view), name=f"{name}_changelist"),
            path("requeue/", wrap(self.requeue_view), name=f"{name}_requeue"),
        ]

    def has_requeue_permission(self, request: HttpRequest) -> bool:
        """Whether the user may put such jobs back into their queues."""
        return self.has_view_permission(request) and request.user.has_perm("graceful.requeue_poison")

    def list_view(self, request: HttpRequest) -> HttpResponse:
        """The jobs, each with the evidence."""
        from graceful.admin import poison_page

        return poison_page.show(self, request)

    @transaction.non_atomic_requests
    def requeue_view(self, request: HttpRequest) -> HttpResponse:
        """Requeue one of them: POST only."""
        from graceful.admin import poison_page

        return poison_page.requeue(self, request)
