"""The page of poison jobs: who may see it and requeue from it, what it shows, and that nothing in it does harm."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from rq import Queue

from graceful.admin import poison_page
from graceful.admin.last_report import unclean_counter
from graceful.core.attempts import Attempt, AttemptEnd, dump
from graceful.metrics import GracefulCollector
from graceful.worker.queue.requeue import ATTEMPTS_FIELD, INTERRUPTIONS_FIELD, POISON_KEY

pytestmark = pytest.mark.django_db

PAGE = "/admin/graceful/poisonjob/"
REQUEUE = f"{PAGE}requeue/"
JOB = "j<1>"
KEY = f"rq:job:{JOB}"
AT = datetime(2026, 11, 25, 8, tzinfo=UTC)
STACK = '  File "/srv/shop/jobs.py", line 71, in rebuild\n    rows.append("<b>")'
EVIDENCE = (
    Attempt(AttemptEnd.WORKER_DIED, AT, "w1", "web-1", "shop.jobs.rebuild", out_of_memory=True),
    Attempt(AttemptEnd.KILLED, AT, "<i>w2", "web\x1b[2J", "", "SIGKILL", 480 * 2**20, stack=STACK),
)


@pytest.fixture(autouse=True)
def no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unclean_counter, "refresh", lambda: None)


@pytest.fixture
def poison(connection: redis.Redis, queue: Queue) -> None:
    """A job that failed for too many interruptions, and that nobody can unpickle."""
    fields = {"status": "failed", "origin": "default", "data": b"no pickle", "meta": b"no pickle"}
    counted = {INTERRUPTIONS_FIELD: 4, ATTEMPTS_FIELD: "\n".join(map(dump, EVIDENCE))}
    connection.hset(KEY, mapping={**fields, **counted})
    connection.zadd(queue.failed_job_registry.key, {JOB: 1})
    connection.zadd(POISON_KEY, {JOB: AT.timestamp()})


def logged_in(*permissions: str, csrf: bool = False) -> Client:
    user = User.objects.create_user("somebody", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(enforce_csrf_checks=csrf)
    client.force_login(user)
    return client


def test_the_page_shows_the_evidence(poison: None) -> None:
    """Function, queue, and of each attempt how it ended, where, at which size, and its stack; all escaped."""
    client = logged_in("view_shutdownreport")
    response = client.get(PAGE)
    page = response.content.decode()
    for text in (
        "j&lt;1&gt;",
        "shop.<wbr>jobs.<wbr>rebuild",
        "its worker was killed; worker w1 on web-1",
        "probably out of memory",
        "killed at the hard limit of a shutdown",
        "worker &lt;i&gt;w2 on web\\x1b[2J",
        "ended by SIGKILL",
        "peak memory 480 MB",
        "rows.append(&quot;&lt;b&gt;&quot;)",
        reverse("admin:django_rq_job_detail", args=(0, JOB)),
    ):
        assert text in page, text
    assert "\x1b" not in page
    assert "no-store" in response["Cache-Control"]
    assert REQUEUE not in page
    assert "csrfmiddlewaretoken" not in page.split("graceful-poison")[1]


def test_the_index_leads_to_it(poison: None) -> None:
    """The admin's index has a row for it, for whoever may see reports."""
    assert PAGE in logged_in("view_shutdownreport").get("/admin/").content.decode()


def test_without_poison(connection: redis.Redis) -> None:
    """An empty list says that there is none."""
    assert "There is none." in logged_in("view_shutdownreport").get(PAGE).content.decode()


def test_an_unreachable_server_is_told_of(monkeypatch: pytest.MonkeyPatch, connection: redis.Redis) -> None:
    """The page is shown without Redis too, and does not claim that there is no such job."""
    for queue in django_settings.RQ_QUEUES.values():
        monkeypatch.setitem(queue, "URL", "redis://127.0.0.1:1/0")
    client = logged_in("view_shutdownreport", "requeue_poison")
    page = client.get(PAGE).content.decode()
    assert "A Redis server is unreachable: this list may not be complete." in page
    assert "There is none." not in page
    said = client.post(REQUEUE, {"job": "j"}, follow=True).content.decode()
    assert "Job j was not requeued: a Redis server is unreachable." in said


@pytest.mark.parametrize(
    ("permissions", "seen", "requeued"),
    [
        ((), 403, 403),
        (("view_shutdownreport",), 200, 403),
        (("requeue_poison",), 403, 403),
        (("view_shutdownreport", "requeue_poison"), 200, 302),
    ],
)
def test_who_may_do_what(
    permissions: tuple[str, ...], seen: int, requeued: int, poison: None, connection: redis.Redis
) -> None:
    """Seeing takes the view permission, requeueing its own besides; without them nothing changes."""
    client = logged_in(*permissions)
    response = client.get(PAGE)
    assert response.status_code == seen
    assert (REQUEUE in response.content.decode()) == (requeued == 302)
    assert client.post(REQUEUE, {"job": JOB}).status_code == requeued
    assert (connection.hget(KEY, "status") == b"queued") == (requeued == 302)


def test_nobody_requeues_by_a_link_or_from_another_site(poison: None, connection: redis.Redis) -> None:
    """It takes a POST with the token of the page."""
    client = logged_in("view_shutdownreport", "requeue_poison", csrf=True)
    assert client.get(REQUEUE).status_code == 405
    assert client.post(REQUEUE, {"job": JOB}).status_code == 403
    assert client.post(PAGE).status_code in (403, 405)
    assert connection.hget(KEY, "status") == b"failed"
    token = client.get(PAGE).context["csrf_token"]
    assert client.post(REQUEUE, {"job": JOB, "csrfmiddlewaretoken": str(token)}).status_code == 302
    assert connection.hget(KEY, "status") == b"queued"


def test_requeueing_is_logged(
    poison: None, connection: redis.Redis, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    """The history of the admin and the log say who has done it; the job is in its queue, and off the list."""
    client = logged_in("view_shutdownreport", "requeue_poison")
    with caplog.at_level(logging.INFO, "graceful.admin"):
        response = client.post(REQUEUE, {"job": JOB}, follow=True)
    page = response.content.decode()
    assert "Job j&lt;1&gt; is at the end of its queue; its interruptions are counted from 0." in page
    assert "There is none." in page
    assert connection.lrange(queue.key, 0, -1) == [JOB.encode()]
    (entry,) = LogEntry.objects.all()
    assert (entry.user.get_username(), entry.action_flag, entry.object_id) == ("somebody", CHANGE, JOB)
    assert entry.object_repr == JOB
    assert entry.get_change_message() == poison_page.LOGGED
    assert caplog.messages == ["Poison job j<1> requeued by somebody"]
    assert client.get("/admin/").status_code == 200  # Its "recent actions" name it.


def test_a_second_click_finds_nothing(poison: None, connection: redis.Redis, queue: Queue) -> None:
    """A job that somebody else has requeued meanwhile is not requeued again, and nothing is logged."""
    client = logged_in("view_shutdownreport", "requeue_poison")
    client.post(REQUEUE, {"job": JOB})
    page = client.post(REQUEUE, {"job": JOB}, follow=True).content.decode()
    assert "Job j&lt;1&gt; is not on the list any more." in page
    assert queue.count == 1
    assert LogEntry.objects.count() == 1


@pytest.mark.parametrize("posted", [{}, {"job": ""}, {"job": "\x00"}, {"job": "x" * 99_999}, {"job": "\ud800"}])
def test_whatever_is_posted(posted: dict[str, Any], connection: redis.Redis) -> None:
    """Any value of the form is answered: there is no such job."""
    client = logged_in("view_shutdownreport", "requeue_poison")
    if posted.get("job") == "\ud800":
        response = client.post(REQUEUE, "job=%ED%A0%80", content_type="application/x-www-form-urlencoded", follow=True)
    else:
        response = client.post(REQUEUE, posted, follow=True)
    assert response.status_code == 200
    assert "is not on the list any more." in response.content.decode()


@pytest.mark.django_db(transaction=True)
def test_prometheus_counts_them(poison: None, connection: redis.Redis) -> None:
    """The gauge has the poison jobs that wait for somebody; without Redis there is none."""

    def value() -> list[float]:
        families = list(GracefulCollector().collect())
        return [sample.value for each in families if each.name == "graceful_poison_jobs" for sample in each.samples]

    assert value() == [1]
    connection.hset(KEY, "status", "queued")
    assert value() == [0]
