"""Deploys, releases and reports as JSON for programs; ``docs/json.md`` and ``docs/deploy.schema.json`` describe it.

Fields may be added within a version; none is removed or changes its meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.utils.translation import override

from graceful.core import records, report_json
from graceful.reports.deploys.records import Capacity, Deploy, HookTotal, JobEnd, Member, Verdict
from graceful.reports.deploys.words import headline
from graceful.reports.releases import ReleaseState

VERSION = 1
MOST_STALE = 100
WORDS = {
    Verdict.CLEAN: "clean",
    Verdict.STALE: "stale",
    Verdict.FAILED: "failed",
    Verdict.INTERRUPTED: "interrupted",
}


def error(why: str) -> dict[str, Any]:
    return {"version": VERSION, "kind": "error", "error": why}


def report(record: records.ShutdownReport) -> dict[str, Any]:
    return {"version": VERSION, "kind": "report", "report": report_json.plain(record)}


def release(state: ReleaseState, its_deploy: Deploy | None) -> dict[str, Any]:
    return {
        "version": VERSION,
        "kind": "release",
        "label": state.label,
        "state": state.state,
        "started_at": _moment(state.started_at),
        "workers": state.workers,
        "stopping": state.stopping,
        "last_shutdown_at": _moment(state.last_at),
        "deploy": None if its_deploy is None else deploy(its_deploy),
    }


def deploy(each: Deploy) -> dict[str, Any]:
    material = each.material
    with override("en"):
        sentence = headline(each)
    slowest = each.slowest
    return {
        "version": VERSION,
        "kind": "deploy",
        "release": each.release,
        "next_release": material.next_release,
        "under_way": each.under_way,
        "verdict": WORDS[each.verdict],
        "exit_code": each.verdict.value,
        "sentence": sentence,
        "began_at": _moment(each.began_at),
        "ended_at": _moment(each.ended_at),
        "complete": not material.more,
        "workers": {
            "ended": each.ended,
            "stopping": sum(member.stopping for member in each.members),
            "waiting": len(each.waiting),
            "outcomes": dict(each.outcomes),
            "not_part_of_it": dict(material.apart),
        },
        "slowest": None if slowest is None else {**_worker(slowest), "seconds": slowest.seconds.total},
        "jobs": {
            "outcomes": dict(material.jobs),
            "interrupted": each.interrupted,
            "ran_again": each.again,
            "not_requeued": each.failed + each.canceled,
        },
        "interrupted_jobs": [_job(job) for job in material.interrupted],
        "hooks": [_hook(hook) for hook in material.hooks],
        "headroom": _headroom(each),
        "capacity": _capacity(each.capacity),
        "living": {
            "known": material.living_known,
            "newest_release": each.newest,
            "releases": dict(each.running),
            "stale": len(each.stale),
            "stale_workers": _workers(each.stale),
        },
    }


def _workers(members: Sequence[Member]) -> list[dict[str, Any]]:
    return [_worker(each) for each in members[:MOST_STALE]]


def _worker(member: Member) -> dict[str, Any]:
    return {
        "report": member.id,
        "worker": member.worker,
        "hostname": member.hostname,
        "release": member.release,
        "phase": str(member.phase),
    }


def _job(job: JobEnd) -> dict[str, Any]:
    again = None
    if job.again_at is not None:
        again = {
            "at": _moment(job.again_at),
            "after_seconds": job.waited,
            "worker": job.again_worker,
            "release": job.again_release,
            "outcome": job.again_outcome or None,
            "ended_at": _moment(job.again_ended_at),
        }
    return {
        "id": job.id,
        "function": job.function,
        "queue": job.queue,
        "worker": job.worker,
        "report": job.report,
        "outcome": job.outcome,
        "interruptions": job.interruptions,
        "started_at": _moment(job.started_at),
        "stopped_at": _moment(job.stopped_at),
        "progress_done": job.progress_done,
        "progress_total": job.progress_total,
        "repeated_seconds": job.repeated,
        "status": job.now or None,
        "again": again,
    }


def _hook(hook: HookTotal) -> dict[str, Any]:
    return {
        "name": hook.name,
        "runs": hook.runs,
        "failed": hook.failed,
        "timed_out": hook.timed_out,
        "skipped": hook.skipped,
        "mean_seconds": hook.mean,
        "slowest_seconds": hook.slowest,
    }


def _headroom(each: Deploy) -> dict[str, Any]:
    room = each.headroom
    return {
        "grace_period_seconds": room.period,
        "drain_allowed_seconds": room.drain_allowed,
        "drain_p95_seconds": room.drain_p95,
        "drain_longest_seconds": room.drain_most,
        "hooks_allowed_seconds": room.hooks_allowed,
        "hooks_longest_seconds": room.hooks_most,
        "total_longest_seconds": room.total_most,
        "real_grace_period_seconds": room.real_period,
    }


def _capacity(capacity: Capacity | None) -> dict[str, Any] | None:
    if capacity is None:
        return None
    return {"before": capacity.before, "lowest": capacity.lowest, "seconds_below": capacity.seconds_below}


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
