"""Addresses of jobs in django-rq's pages, where a site has them. Read in django-rq 4.0 to 4.2."""

from __future__ import annotations

from collections.abc import Callable

from django.urls import NoReverseMatch, reverse
from django_rq.settings import get_queues_list

from graceful.core.records import InFlightJob

VIEWS = ("admin:django_rq_job_detail", "django_rq:job_detail")
"""In the admin (django-rq registers it unless RQ_SHOW_ADMIN_LINK is off), and under ``include("django_rq.urls")``."""


JobAddress = Callable[[str, str], str]
"""The address of a job's page, of a queue's name and the job's id; empty where there is none."""


def job_link(site_name: str) -> Callable[[InFlightJob], str]:
    """The address of the page of a job in flight."""
    address = job_address(site_name)
    return lambda job: address(job.queue, job.id)


def job_address(site_name: str) -> JobAddress:
    """The address of a job's page; empty if the site has none, or none of the job's queue."""
    indexes = {str(each.get("name")): index for index, each in enumerate(get_queues_list())}

    def link(queue: str, job_id: str) -> str:
        index = indexes.get(queue)
        for view in VIEWS if index is not None else ():
            try:
                return reverse(view, args=(index, job_id), current_app=site_name)
            except NoReverseMatch:  # Not there, or an id with a slash.
                continue
        return ""

    return link
