"""The admin's page that makes a living worker quiet: who may, what it asks, what it says where nobody follows."""

from __future__ import annotations

import pytest
import redis
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.contrib.messages import get_messages
from django.test import Client

from graceful.admin import tell_page
from graceful.core.records import ShutdownReport, utc_now
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports.journal import Journal
from graceful.worker.cluster.registration import HEARTBEATS_KEY

pytestmark = pytest.mark.django_db

LAST = "/admin/graceful/lastdeploy/"
QUIET, RESUME = f"{LAST}worker/id-1/quiet/", f"{LAST}worker/id-1/resume/"
HOSTILE = "<script>alert(1)</script>\x1b[31m"


@pytest.fixture
def worker(connection: redis.Redis) -> ShutdownReport:
    """A living worker that does not listen."""
    report = ShutdownReport("id-1", HOSTILE, "host", 1, ("default",), "rq.Worker", utc_now(), "1")
    Journal(connection).write(report)
    connection.zadd(HEARTBEATS_KEY, {report.id: float(connection.time()[0])})
    return report


def permission(codename: str) -> Permission:
    of_reports = ContentType.objects.get_for_model(ArchivedReport)
    return Permission.objects.get(codename=codename, content_type=of_reports)


def logged_in(client: Client, *permissions: str) -> Client:
    user = User.objects.create_user("user", is_staff=True)
    user.user_permissions.set([permission(codename) for codename in permissions])
    client.force_login(user)
    return client


def test_only_with_the_permission(client: Client, worker: ShutdownReport) -> None:
    """Who may only read is neither asked nor heard; the list of reports stays read-only for everybody."""
    reader = logged_in(client, "view_shutdownreport")
    for url in (QUIET, RESUME):
        assert reader.get(url).status_code == 403
        assert reader.post(url).status_code == 403
    user = User.objects.get()
    user.user_permissions.add(permission("quiet_workers"))
    assert reader.get(QUIET).status_code == 200
    assert reader.put(QUIET).status_code == 405
    user.user_permissions.set([permission("quiet_workers")])
    assert reader.get(QUIET).status_code == 403, "without the permission to read"


def test_it_asks_first(worker: ShutdownReport) -> None:
    """A GET changes nothing and shows a form with a CSRF token; a POST without that is refused."""
    client = logged_in(Client(enforce_csrf_checks=True), "view_shutdownreport", "quiet_workers")
    page = client.get(QUIET).content.decode()
    assert "takes no new job from then on" in page
    assert "csrfmiddlewaretoken" in page
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert not LogEntry.objects.exists()
    assert client.post(QUIET).status_code == 403
    assert "takes jobs again from then on" in client.get(RESUME).content.decode()


def test_what_nobody_follows_is_said(
    client: Client, worker: ShutdownReport, connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is logged whatever becomes of it; a worker that does not follow, or is gone, is told of."""
    monkeypatch.setattr(tell_page, "CONFIRM_SECONDS", 0.2)
    client = logged_in(client, "view_shutdownreport", "quiet_workers")

    def said(url: str) -> str:
        response = client.post(url)
        assert (response.status_code, response["Location"]) == (302, LAST)
        (message,) = [str(each) for each in get_messages(response.wsgi_request)][-1:]
        return message

    assert "has not followed yet" in said(QUIET)
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.change_message) == ("id-1", "Asked to be quiet.")
    assert "takes jobs again" in said(RESUME), "it already does"
    Journal(connection).remove("id-1")
    assert said(QUIET) == "This worker has ended meanwhile."


def test_redis_is_unreachable(client: Client, worker: ShutdownReport, settings: object) -> None:
    """The page comes back with what is wrong, and not with an error."""
    settings.RQ_QUEUES = {"default": {"HOST": "127.0.0.1", "PORT": 9}}  # type: ignore[attr-defined]
    client = logged_in(client, "view_shutdownreport", "quiet_workers")
    response = client.get(QUIET)
    assert (response.status_code, response["Location"]) == (302, LAST)
    assert [str(each) for each in get_messages(response.wsgi_request)] == ["Redis is unreachable."]


def test_the_address_is_checked(client: Client, connection: redis.Redis) -> None:
    """An id that no report can have is not looked for."""
    client = logged_in(client, "view_shutdownreport", "quiet_workers")
    assert client.get(f"{LAST}worker/a%00b/quiet/").status_code == 404
    assert client.get(f"{LAST}worker/{'a' * 300}/quiet/").status_code == 404
