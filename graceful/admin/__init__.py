"""Shutdown reports in the admin, read-only. Nothing here unpickles a job or asks RQ for one.

What only a page needs is imported where the page is shown: Django's autodiscovery has each worker load this module.
"""

from __future__ import annotations

import json
from typing import Any, cast

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    HttpResponseNotAllowed,
)
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.http import content_disposition_header
from django.utils.translation import gettext_lazy as _

from graceful.admin.change_list import TIME, CappedPaginator, ReportChangeList
from graceful.admin.deploys import LastDeployAdmin as LastDeployAdmin
from graceful.admin.filters import WITH_CHOICES, ByFailedHook, ByHost, ByQueue, ByRelease, in_full
from graceful.admin.last_report import around, unclean_counter
from graceful.admin.poison import PoisonJobAdmin as PoisonJobAdmin
from graceful.admin.read_only import PAGE_SECONDS, ReadOnlyAdmin, form_context, reap_for_page
from graceful.admin.trends import TrendsAdmin as TrendsAdmin
from graceful.core import report_json
from graceful.core.text import one_line
from graceful.models import LastShutdownReport, ShutdownReport
from graceful.reports.rows import local_time, record_of
from graceful.reports.sources import page_archiver
from graceful.reports.text import seconds_text, short_name

SHOWN_QUEUES = 60
"""Characters of the queues' names in the list."""


@admin.register(ShutdownReport)
class ShutdownReportAdmin(ReadOnlyAdmin):
    """The list, the page of one report, its JSON, and the way to the newest."""

    list_display = (
        # In the order of what matters: a small window may cut off the right end of the list.
        "time",
        "outcome_badge",
        "reason_word",
        "release_label",
        "queue_names",
        "worker_name",
        "host",
        "total",
        "hooks_of_all",
    )
    list_display_links = ("time", "worker_name")
    # Fields with choices, and filters of our own: for any other field Django would read all values from the table.
    # The rarer keyword first: of two, a database begins with the first.
    list_filter = (*WITH_CHOICES, ByRelease, ByFailedHook, ByQueue, ByHost)
    search_fields = ("worker", "hostname", "release", "id")
    search_help_text = _("The beginning of a worker, host or release; or the whole id of a job or report")
    date_hierarchy = TIME
    ordering = (f"-{TIME}", "-id")
    list_per_page = 50
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = CappedPaginator
    actions = None
    # Lookups allowed in a query string; each uses an index.
    lookups = frozenset(
        {
            *(f"{TIME}__{unit}" for unit in ("year", "month", "day", "gte", "lt")),
            *(f"{field}__{how}" for field in WITH_CHOICES for how in ("exact", "isnull")),
            *(
                "worker",
                "worker__exact",
                "hostname",
                "hostname__exact",
                "release",
                "release__exact",
                "queue",
                "failed_hook",
            ),
        }
    )

    class Media:
        css = {"all": ("graceful/admin.css",)}

    def get_urls(self) -> list[URLPattern]:
        def name(view: str) -> str:
            return f"{self.opts.app_label}_{self.opts.model_name}_{view}"

        wrap = self.admin_site.admin_view
        return [
            path("last/", wrap(self.last_view), name=name("last")),
            path("export.csv", wrap(self.export_list_view), {"form": "csv"}, name=name("export_csv")),
            path("export.json", wrap(self.export_list_view), {"form": "json"}, name=name("export_json")),
            path("<path:object_id>/export/", wrap(self.export_view), name=name("export")),
            *super().get_urls(),
        ]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ReportChangeList]:
        return ReportChangeList

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        request.GET = in_full(request.GET)  # type: ignore[assignment]
        return super().get_changelist_instance(request)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup in self.lookups

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ShutdownReport], search_term: str
    ) -> tuple[QuerySet[ShutdownReport], bool]:
        if not search_term:
            return queryset, False
        from graceful.admin.search import found_by

        found = found_by(queryset, search_term)
        request.graceful_listed = found.listed  # type: ignore[attr-defined]
        return found.counted, False

    # Not in a request's transaction: while that one reads, SQLite could not store reports.
    @transaction.non_atomic_requests
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if self.has_view_permission(request):
            page_archiver.run(PAGE_SECONDS, reap_for_page)
        return super().changelist_view(request, extra_context)

    @transaction.non_atomic_requests
    def last_view(self, request: HttpRequest) -> HttpResponse:
        return self.redirect_to_last(request)

    @transaction.non_atomic_requests
    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The page of one report."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        row = self._row(request, object_id)
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined, no-any-return]
        from graceful.admin.job_links import job_link
        from graceful.reports.page import report_page

        page = report_page(record_of(row), job_link(self.admin_site.name))
        context = {
            **self.admin_site.each_context(request),
            **form_context(self),
            "title": page.title,
            "original": page.title,
            "page": page,
            "badge": self.outcome_badge(row),
            "around": around(row, self.admin_site.name),
            "deploy_url": reverse(
                "admin:graceful_lastdeploy_of", args=(quote(row.pk),), current_app=self.admin_site.name
            ),
            "export_url": reverse(
                "admin:graceful_shutdownreport_export", args=(quote(row.pk),), current_app=self.admin_site.name
            ),
            **(extra_context or {}),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/graceful/shutdownreport/change_form.html", context)

    def export_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The report as JSON."""
        row = self._row(request, object_id)
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined, no-any-return]
        body = json.dumps(report_json.plain(record_of(row)), indent=2)
        response = HttpResponse(body, content_type="application/json")
        response["Content-Disposition"] = content_disposition_header(True, f"shutdown-{quote(row.pk)}.json") or ""
        response["X-Content-Type-Options"] = "nosniff"
        return response

    @transaction.non_atomic_requests
    def export_list_view(self, request: HttpRequest, form: str) -> HttpResponseBase:
        """The reports of the list with the filters of this request, as CSV or JSON."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if not self.has_view_permission(request):
            raise PermissionDenied
        from graceful.admin.export import exported

        try:
            return exported(cast(ReportChangeList, self.get_changelist_instance(request)), form)
        except IncorrectLookupParameters:
            return HttpResponseBadRequest()

    def _row(self, request: HttpRequest, object_id: str) -> ShutdownReport | None:
        """The report with this id, even if it still waits in Redis."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        reports = self.get_queryset(request).prefetch_related("hooks", "jobs")
        report_id = unquote(object_id)
        if "\x00" in report_id:
            return None
        row = reports.filter(pk=report_id).first()
        if row is None and page_archiver.run(PAGE_SECONDS, reap_for_page):
            row = reports.filter(pk=report_id).first()
        return row

    @admin.display(description=_("time"), ordering=TIME)
    def time(self, row: ShutdownReport) -> str:
        return f"{local_time(row.happened_at):%Y-%m-%d %H:%M:%S}"

    @admin.display(description=_("worker"))
    def worker_name(self, row: ShutdownReport) -> str:
        return format_html('<span title="{}">{}</span>', one_line(row.worker), short_name(row.worker))

    @admin.display(description=_("host"))
    def host(self, row: ShutdownReport) -> str:
        return one_line(row.hostname)

    @admin.display(description=_("queues"))
    def queue_names(self, row: ShutdownReport) -> str:
        names = one_line(", ".join(row.queues))
        return names if len(names) <= SHOWN_QUEUES else names[: SHOWN_QUEUES - 3] + "..."

    @admin.display(description=_("release"), empty_value="-")
    def release_label(self, row: ShutdownReport) -> str:
        return one_line(row.release)

    @admin.display(description=_("reason"))
    def reason_word(self, row: ShutdownReport) -> str:
        return one_line(row.signal or "") or row.get_recycled_display() or row.get_reason_display() or "-"

    @admin.display(description=_("outcome"))
    def outcome_badge(self, row: ShutdownReport) -> str:
        if row.outcome is None:
            return format_html('<span class="graceful-badge">{}</span>', row.get_phase_display())
        return format_html(
            '<span class="graceful-badge graceful-{}">{}</span>', row.outcome, row.get_outcome_display() or ""
        )

    @admin.display(description=_("took"))
    def total(self, row: ShutdownReport) -> str:
        return seconds_text(row.total_seconds)

    @admin.display(description=_("hooks ok"))
    def hooks_of_all(self, row: ShutdownReport) -> str:
        return f"{row.hooks_ok}/{row.hooks_total}"


@admin.register(LastShutdownReport)
class LastShutdownReportAdmin(ReadOnlyAdmin):
    """A row in the admin's index that leads straight to the last report, and counts the unclean ones."""

    def get_urls(self) -> list[URLPattern]:
        changelist = f"{self.opts.app_label}_{self.opts.model_name}_changelist"
        return [path("", self.admin_site.admin_view(self.last_view), name=changelist)]

    def get_model_perms(self, request: HttpRequest) -> dict[str, bool]:
        permissions = super().get_model_perms(request)
        if permissions["view"]:  # The index, or a page with its sidebar, is about to be shown.
            unclean_counter.refresh()
        return permissions

    @transaction.non_atomic_requests
    def last_view(self, request: HttpRequest) -> HttpResponse:
        return self.redirect_to_last(request)
