"""A deploy as a web page shows it: words and durations ready for the template.

Every text from outside has its control and direction characters escaped; the template does the escaping of HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

from graceful.core.phases import JobOutcome, Phase
from graceful.core.text import cut, one_line
from graceful.labels import stored_label
from graceful.reports.deploys.lines import DeployPage, HookLine, JobLine, LivingLine, Measure, ReleaseLine
from graceful.reports.deploys.picture import picture
from graceful.reports.deploys.records import Deploy, HookTotal, JobEnd, Member, Verdict
from graceful.reports.deploys.words import (
    advice,
    apart_words,
    capacity_words,
    headline,
    repeated,
    where_it_went,
)
from graceful.reports.releases import ReleaseState
from graceful.reports.rows import local_time
from graceful.reports.sentences import listed
from graceful.reports.text import printable_text, seconds_text

MOST_LIVING = 60
MOST_SHOWN = 100
LONGEST_STACK = 4000
BADGES = {
    Verdict.CLEAN: "clean",
    Verdict.INTERRUPTED: "interrupted",
    Verdict.FAILED: "failed",
    Verdict.STALE: "failed",
}

JobLink = Callable[[str, str], str]
"""From job id and queue to the address of the job's page, empty if there is none."""
ReleaseLink = Callable[[str], str]
"""From a label to the address of the release's page."""


def deploy_page(
    deploy: Deploy, releases: Sequence[ReleaseState], job_link: JobLink, release_link: ReleaseLink
) -> DeployPage:
    """The page of a deploy; times are in the current time zone.

    Args:
        deploy: the deploy.
        releases: states of the releases.
        job_link: the address of a job's page.
        release_link: the address of a release's page.
    """
    material = deploy.material
    living = sorted(material.living, key=lambda each: _first_things_first(each, deploy))
    shown = living[:MOST_LIVING]
    stale = {each.id for each in deploy.stale}
    more = len(living) - len(shown)
    lost = deploy.interrupted - min(deploy.interrupted, MOST_SHOWN, len(material.interrupted))
    return DeployPage(
        title=_("Deploy of %(release)s") % {"release": one_line(deploy.release)[:60]}
        if deploy.release
        else _("Deploy"),
        badge="running" if deploy.under_way else BADGES[deploy.verdict],
        verdict=_("under way") if deploy.under_way else verdict_words(deploy.verdict),
        headline=headline(deploy),
        when=_when(deploy),
        notices=tuple(_notices(deploy)),
        under_way=deploy.under_way,
        picture=picture(deploy),
        capacity=capacity_words(deploy),
        apart=apart_words(deploy),
        measures=_measures(deploy),
        advice=tuple(advice(deploy.headroom)),
        interrupted=tuple(_job(job, job_link) for job in material.interrupted[:MOST_SHOWN]),
        interrupted_more=""
        if lost <= 0
        else ngettext("%(count)d more is not shown.", "%(count)d more are not shown.", lost) % {"count": lost},
        longest=tuple(_job(job, job_link) for job in material.longest),
        hooks=tuple(_hook(hook) for hook in material.hooks if hook.runs > hook.skipped),
        stacks=tuple((_stack_title(count), printable_text(cut(text, LONGEST_STACK))) for text, count in deploy.stacks),
        living=tuple(_living(each, stale, material.now, job_link) for each in shown),
        living_more=""
        if not more
        else ngettext("%(count)d more is not shown.", "%(count)d more are not shown.", more) % {"count": more},
        stale=len(stale),
        releases=_releases(releases, release_link),
    )


def verdict_words(verdict: Verdict) -> str:
    """The verdict in a word or two."""
    return {
        Verdict.CLEAN: _("clean"),
        Verdict.INTERRUPTED: _("jobs interrupted"),
        Verdict.FAILED: _("not clean"),
        Verdict.STALE: _("stale workers"),
    }[verdict]


def _releases(states: Sequence[ReleaseState], release_link: ReleaseLink) -> tuple[ReleaseLine, ...]:
    words = {
        "active": pgettext("release", "active"),
        "draining": _("draining"),
        "drained": _("drained"),
        "unknown": _("unknown"),
    }
    return tuple(
        ReleaseLine(
            label=one_line(each.label),
            url=release_link(each.label) if each.label else "",
            state={"active": "ok", "draining": "interrupted"}.get(each.state, "plain"),
            words=words[each.state],
            started=moment(each.started_at),
            workers=str(each.workers)
            if not each.stopping
            else _("%(workers)d, of which %(stopping)d stopping")
            % {"workers": each.workers, "stopping": each.stopping},
            last=moment(each.last_at),
        )
        for each in states
    )


def moment(at: datetime | None) -> str:
    return "-" if at is None else f"{local_time(at):%Y-%m-%d %H:%M:%S}"


def _when(deploy: Deploy) -> str:
    if deploy.began_at is None:
        return ""
    values = {"began": moment(deploy.began_at), "next": one_line(deploy.material.next_release)}
    if deploy.ended_at is not None:
        values["seconds"] = seconds_text(max(0.0, (deploy.ended_at - deploy.began_at).total_seconds()))
        if values["next"]:
            return _("From %(began)s, %(seconds)s long; followed by %(next)s.") % values
        return _("From %(began)s, %(seconds)s long.") % values
    if values["next"]:
        return _("Since %(began)s; followed by %(next)s.") % values
    return _("Since %(began)s.") % values


def _notices(deploy: Deploy) -> list[str]:
    lines = []
    material = deploy.material
    if not material.living_known:
        lines.append(_("Redis is unreachable or slow: the living workers are not known, or not all of them."))
    if material.more:
        lines.append(_("There were more shutdowns: the newest %(count)d are shown.") % {"count": len(material.ended)})
    silent = sum(each.silent for each in material.living)
    if silent:
        text = ngettext(
            "The heartbeat of %(count)d worker is overdue; it may be dead.",
            "The heartbeats of %(count)d workers are overdue; they may be dead.",
            silent,
        )
        lines.append(text % {"count": silent})
    if deploy.stale:
        count = len(deploy.stale)
        text = ngettext(
            "%(count)d living worker is stale: it runs a release before %(newest)s.",
            "%(count)d living workers are stale: they run a release before %(newest)s.",
            count,
        )
        lines.append(text % {"count": count, "newest": one_line(deploy.newest or "") or _("the newest")})
    return lines


def _measures(deploy: Deploy) -> tuple[Measure, ...]:
    room = deploy.headroom

    def measure(label: str, taken: float | None, allowed: float | None) -> Measure | None:
        if taken is None:
            return None
        share = 100 * taken / allowed if allowed else 0.0
        width = f"{min(100.0, max(0.0, share)):.1f}%"
        return Measure(label, seconds_text(taken), seconds_text(allowed), width, share > 100)

    found = (
        measure(_("Drain, 95th percentile"), room.drain_p95, room.drain_allowed),
        measure(_("Drain, the longest"), room.drain_most, room.drain_allowed),
        measure(_("Exit hooks, the longest"), room.hooks_most, room.hooks_allowed),
        measure(_("The whole shutdown, the longest"), room.total_most, room.period),
        measure(_("Real grace period, learnt from kills"), room.real_period, room.period),
    )
    return tuple(each for each in found if each is not None)


def _job(job: JobEnd, job_link: JobLink) -> JobLine:
    return JobLine(
        id=one_line(job.id),
        url=job_link(job.id, job.queue),
        function=one_line(job.function),
        queue=one_line(job.queue),
        worker=one_line(job.worker),
        report=job.report,
        outcome=job.outcome,
        words=stored_label(JobOutcome, job.outcome),
        seconds=seconds_text(job.seconds),
        where=where_it_went(job),
        repeated=repeated(job),
    )


def _hook(hook: HookTotal) -> HookLine:
    bad = []
    if hook.failed:
        bad.append(_("%(count)d failed") % {"count": hook.failed})
    if hook.timed_out:
        bad.append(_("%(count)d timed out") % {"count": hook.timed_out})
    return HookLine(
        one_line(cut(hook.name, 200)),
        hook.runs - hook.skipped,
        listed(bad),
        seconds_text(hook.mean),
        seconds_text(hook.slowest),
    )


def _stack_title(count: int) -> str:
    return ngettext("%(count)d job stood here", "%(count)d jobs stood here", count) % {"count": count}


def _first_things_first(each: Member, deploy: Deploy) -> tuple[int, str, datetime, str]:
    stale = {other.id for other in deploy.stale} if len(deploy.stale) < MOST_LIVING else set()
    order = 0 if each.stopping else 1 if each.silent or each.id in stale else 2
    return order, each.release, each.started_at, each.id


def _living(each: Member, stale: set[str], now: datetime, job_link: JobLink) -> LivingLine:
    state, words = "ok", _("takes jobs")
    if each.silent:
        state, words = "failed", _("heartbeat overdue")
    elif each.stopping:
        state, words = "interrupted", stored_label(Phase, each.phase)
    elif each.quiet:
        state, words = "plain", _("quiet")
    elif each.id in stale:
        state, words = "interrupted", _("stale")
    left = ""
    if each.requested_at is not None and each.grace.period is not None:
        left = seconds_text(max(0.0, each.grace.period - (now - each.requested_at).total_seconds()))
    job, progress = each.job, ""
    if job is not None and job.progress_done is not None:
        values = {"done": job.progress_done, "total": job.progress_total}
        progress = (_("%(done)d") if job.progress_total is None else _("%(done)d of %(total)d")) % values
    return LivingLine(
        report=each.id,
        tell="" if each.silent or each.stopping else "resume" if each.quiet else "quiet",
        worker=one_line(each.worker),
        host=one_line(each.hostname),
        release=one_line(each.release),
        state=state,
        words=words,
        job="" if job is None else one_line(job.function or job.id),
        job_url="" if job is None else job_link(job.id, job.queue),
        progress=progress,
        left=left,
    )
