"""Addresses of jobs in django-rq's pages, where a site has them. Read in django-rq 4.0 to 4.2."""

from __future__ import annotations

from collections.abc import Callable

from django.urls import NoReverseMatch, reverse
from django_rq.settings import get_queues_list

from graceful.core.records import InFlightJob

VIEWS = ("admin:django_rq_job_detail", "django_rq:job_detail")
"""In the admin (django-rq registers it unless RQ_SHOW_ADMIN_LINK is off), and under ``include("django_rq.urls")``."""


def job_link(site_name: str) -> Callable[[InFlightJob], str]:
    """The address of a job's page; empty if the site has none, or none of the job's queue."""
    indexes = {str(each.get("name")): index for index, each in enumerate(get_queues_list())}

    def link(job: InFlightJob) -> str:
        index = indexes.get(job.queue)
        for view in VIEWS if index is not None else ():
            try:
                return reverse(view, args=(index, job.id), current_app=site_name)
            except NoReverseMatch:  # Not there, or an id with a slash.
                continue
        return ""

    return link
