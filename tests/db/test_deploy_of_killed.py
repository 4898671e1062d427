"""A deploy whose old workers were killed, without ever hearing of the stop, is not mistaken for the one before it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from graceful.core.phases import Outcome, Phase, Reason
from graceful.models import Release
from graceful.reports.deploys.gate import Gate, verdict
from graceful.reports.deploys.projection import deploy_of
from graceful.reports.deploys.records import Verdict
from graceful.reports.deploys.rows import Living, last_material
from tests.db.samples import a_clean_report, save
from tests.db.test_deploy_pages import NOON, living, stopped

pytestmark = pytest.mark.django_db


def killed_release() -> None:
    """Release 1 ended cleanly at noon; release 2 was killed a minute later, and 3 came after it."""
    killed = a_clean_report(
        release="2",
        outcome=Outcome.KILLED,
        reason=Reason.KILLED,
        phase=Phase.RUNNING,
        signal=None,
        exit_code=None,
        started_at=NOON + timedelta(seconds=1),
        requested_at=None,
        drained_at=None,
        ended_at=NOON + timedelta(seconds=60),
    )
    save(stopped(0), killed)
    for number, label in enumerate(("1", "2", "3")):
        Release.objects.update_or_create(label=label, defaults={"started_at": NOON + timedelta(seconds=35 * number)})


def test_the_gate_tells_of_the_killed() -> None:
    """With all over before its first look, the gate goes by the release before, which nobody asked to end."""
    killed_release()
    now = Living((living(0, "3"),))
    gate = Gate("3", 1)
    look = gate.look(now)
    deploys = gate.deploys(now, NOON + timedelta(seconds=90))
    assert [deploy.material.release for deploy in deploys] == ["2"]
    assert verdict(deploys, look) is Verdict.FAILED


def test_the_last_deploy_is_theirs() -> None:
    """The page shows the release that was killed, since a later one has come in its place."""
    killed_release()
    material = last_material(Living((living(0, "3"),)), NOON + timedelta(seconds=90))
    assert material is not None
    assert deploy_of(material).material.release == "2"
    Release.objects.filter(label="3").delete()
    alone = last_material(Living(), NOON + timedelta(seconds=90))
    assert alone is not None
    assert alone.release == "1"  # A worker that was killed while nothing was deployed is no deploy.
