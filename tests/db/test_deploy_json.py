"""The JSON of deploys: who may read it, that it keeps to its schema, and that nobody caches it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.test.utils import override_settings

from graceful.core.phases import JobOutcome, Outcome
from graceful.core.records import InFlightJob, JobTally
from graceful.reports.deploys.rows import Living
from graceful.worker.cluster import deploy_now, whole_fleet
from tests.db.test_deploy_pages import HOSTILE, NOON, Fleet, living, save, stopped

pytestmark = pytest.mark.django_db

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs" / "deploy.schema.json").read_text())
TOKEN = "a-token-that-is-long-enough"
DEPLOY, REPORT, RELEASE = "/graceful/deploy/", "/graceful/report/", "/graceful/release/1/"


@pytest.fixture(autouse=True)
def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """No Redis: reading it has tests of its own."""
    fleet = Fleet()
    monkeypatch.setattr(deploy_now, "page_fleet", fleet)
    monkeypatch.setattr(deploy_now.page_archiver, "run", lambda seconds: False)
    monkeypatch.setattr(deploy_now, "where_now", lambda jobs, seconds: tuple(jobs))
    return fleet


def with_token(client: Client, url: str, token: str = TOKEN) -> Any:
    return client.get(url, headers={"authorization": f"Bearer {token}"})


@override_settings(GRACEFUL_JSON_TOKEN=TOKEN)
@pytest.mark.parametrize("url", [DEPLOY, REPORT, RELEASE])
def test_it_keeps_to_its_schema(url: str, client: Client, fleet: Fleet) -> None:
    """What a program gets is what the schema says, hostile names included, and is not cached."""
    job = InFlightJob(HOSTILE, HOSTILE, HOSTILE, JobOutcome.INTERRUPTED, 1.0, 1, "stack", NOON, 3, None)
    save(
        [
            stopped(0),
            stopped(1, outcome=Outcome.INTERRUPTED, worker=HOSTILE, jobs=JobTally(1, 0, (job,))),
        ]
    )
    fleet.living = Living((living(0), living(1, "1", started_at=NOON - timedelta(days=1))))
    response = with_token(client, url)
    assert response.status_code == 200
    body = json.loads(response.content)
    jsonschema.validate(body, SCHEMA)
    assert "no-store" in response["Cache-Control"]
    assert response["Content-Type"] == "application/json"
    deploy = body["deploy"] if url == RELEASE else body
    if url != REPORT:
        assert (deploy["verdict"], deploy["exit_code"], deploy["workers"]["waiting"]) == ("interrupted", 75, 1)
    assert client.head(url, headers={"authorization": f"Bearer {TOKEN}"}).content == b""


@pytest.mark.parametrize("url", [DEPLOY, REPORT, RELEASE])
def test_who_may_read_it(url: str, client: Client) -> None:
    """Nobody without a session or the token (401), no user without the permission (403); a user with it may."""
    save([stopped(0)])
    for given in ("", "Bearer ", f"Bearer {TOKEN}", "Bearer None", "Basic eDp5", "Bearer \xfc"):
        response = client.get(url, headers={"authorization": given})
        assert response.status_code == 401, given
        assert response["WWW-Authenticate"].startswith("Bearer")
        jsonschema.validate(json.loads(response.content), SCHEMA)
    with override_settings(GRACEFUL_JSON_TOKEN=TOKEN):
        assert with_token(client, url, "another-token-of-that-length").status_code == 401
        assert with_token(client, url, TOKEN + "x").status_code == 401
        assert with_token(client, url).status_code == 200
    user = User.objects.create_user("reader")
    client.force_login(user)
    assert client.get(url).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="view_shutdownreport"))
    assert client.get(url).status_code == 200
    # A wrong token is not excused by a session.
    assert with_token(client, url).status_code == 401


@override_settings(GRACEFUL_JSON_TOKEN=TOKEN)
def test_nothing_to_show(client: Client) -> None:
    """Without reports, or for a release that nobody has run, it is a 404; other methods are a 405."""
    for url in (DEPLOY, REPORT, RELEASE, "/graceful/release/a/b/", "/graceful/release/%00/"):
        assert with_token(client, url).status_code == 404, url
    for url in (DEPLOY, REPORT, RELEASE):
        response = client.post(url, headers={"authorization": f"Bearer {TOKEN}"})
        assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")


def test_redis_is_away(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive is shown all the same, and that the living workers are not known."""
    save([stopped(0)])
    monkeypatch.setattr(deploy_now, "page_fleet", whole_fleet.PageFleet())
    with override_settings(GRACEFUL_JSON_TOKEN=TOKEN, RQ_QUEUES={"default": {"URL": "redis://127.0.0.1:1/0"}}):
        body = json.loads(with_token(client, DEPLOY).content)
    assert body["living"]["known"] is False
    assert body["workers"]["ended"] == 1
