"""A deploy in sentences: its verdict, headroom and capacity, in the current language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from graceful.core.outcome import GRAVE
from graceful.core.phases import JobOutcome, Outcome, Reason
from graceful.core.text import one_line
from graceful.labels import label, stored_label
from graceful.reports.deploys.records import Deploy, Headroom, JobEnd
from graceful.reports.sentences import listed, sentences
from graceful.reports.text import seconds_text, short_name


def headline(deploy: Deploy) -> str:
    """The verdict in one sentence or two."""
    return sentences(_sentences(deploy))


def _sentences(deploy: Deploy) -> Iterator[str]:
    name = one_line(deploy.release)
    workers, clean = deploy.ended, deploy.outcomes.get(Outcome.CLEAN, 0)
    if not deploy.members:
        text = _("Release %(release)s: none of its workers has been stopped.") if name else _("Nothing was stopped.")
        yield text % {"release": name}
    elif workers:
        values = {"release": name, "clean": clean, "workers": workers}
        if name:
            text = ngettext(
                "Release %(release)s: %(clean)d of %(workers)d worker ended cleanly.",
                "Release %(release)s: %(clean)d of %(workers)d workers ended cleanly.",
                workers,
            )
        else:
            text = ngettext(
                "%(clean)d of %(workers)d worker ended cleanly.",
                "%(clean)d of %(workers)d workers ended cleanly.",
                workers,
            )
        yield text % values
    bad = [(label(each), deploy.outcomes[each]) for each in GRAVE if deploy.outcomes.get(each)]
    if bad:
        yield _("Not clean: %(list)s.") % {"list": _counts(bad)}
    if stopping := sum(each.stopping for each in deploy.members):
        text = ngettext("%(count)d worker is stopping.", "%(count)d workers are stopping.", stopping)
        yield text % {"count": stopping}
    yield from _jobs(deploy)
    slowest = deploy.slowest
    if slowest is not None and slowest.seconds.total is not None:
        took, period = seconds_text(slowest.seconds.total), slowest.grace.period
        if period is None:
            yield _("The slowest took %(seconds)s.") % {"seconds": took}
        else:
            values = {"seconds": took, "period": seconds_text(period)}
            yield _("The slowest took %(seconds)s of %(period)s.") % values
    if deploy.waiting:
        count = len(deploy.waiting)
        text = ngettext(
            "%(count)d worker of it still runs, and nobody has asked it to stop.",
            "%(count)d workers of it still run, and nobody has asked them to stop.",
            count,
        )
        yield text % {"count": count}


def _jobs(deploy: Deploy) -> Iterator[str]:
    count = deploy.interrupted
    if not count:
        if deploy.ended:
            yield _("No job was interrupted.")
        return
    text = ngettext("%(count)d job was interrupted", "%(count)d jobs were interrupted", count) % {"count": count}
    if deploy.again == count and deploy.again_seconds is not None:
        within = ngettext(
            "%(jobs)s, and ran again within %(seconds)s.", "%(jobs)s, and all ran again within %(seconds)s.", count
        )
        yield within % {"jobs": text, "seconds": seconds_text(deploy.again_seconds)}
    elif deploy.again:
        all_known = deploy.again + deploy.failed + deploy.canceled >= count
        again = _("%(jobs)s; %(again)d ran again.") if all_known else _("%(jobs)s; %(again)d ran again so far.")
        yield again % {"jobs": text, "again": deploy.again}
    else:
        yield _("%(jobs)s.") % {"jobs": text}
    if deploy.failed:
        yield ngettext(
            "%(count)d job failed for its interruption, and was not requeued.",
            "%(count)d jobs failed for their interruption, and were not requeued.",
            deploy.failed,
        ) % {"count": deploy.failed}
    if deploy.canceled:
        yield ngettext(
            "%(count)d job had been cancelled or deleted, and was not requeued.",
            "%(count)d jobs had been cancelled or deleted, and were not requeued.",
            deploy.canceled,
        ) % {"count": deploy.canceled}


def where_it_went(job: JobEnd) -> str:
    """What became of an interrupted job."""
    if job.again_at is not None:
        values = {
            "seconds": seconds_text(job.waited),
            "worker": short_name(job.again_worker) or _("an unknown worker"),
            "release": one_line(job.again_release),
            "outcome": stored_label(JobOutcome, job.again_outcome) or _("not over, as far as is known"),
        }
        if job.again_release:
            text = _("ran again after %(seconds)s on worker %(worker)s of release %(release)s: %(outcome)s")
        else:
            text = _("ran again after %(seconds)s on worker %(worker)s: %(outcome)s")
        return text % values
    if job.failed:
        return _("failed, and was not requeued")
    if job.canceled:
        return _("had been cancelled or deleted, and was not requeued")
    waiting = {
        "queued": _("is in its queue, and has not run again yet"),
        "started": _("is running again"),
        "deferred": _("waits for another job"),
        "scheduled": _("is scheduled to run later"),
        "stopped": _("was stopped by a user"),
        "rate_limited": _("waits for its rate limit"),
        "ready_to_enqueue": _("is about to be put into its queue"),
        "created": _("was created, and is in no queue"),
        "gone": _("is not in Redis any more"),
        "": _("requeued; it is not known when it ran again"),
    }
    return waiting.get(job.now) or _("its status is now: %(status)s") % {
        "status": stored_label(JobOutcome, JobOutcome.RUNNING if job.now == "started" else job.now)
    }


def repeated(job: JobEnd) -> str:
    """What the next run repeats."""
    if job.failed or job.canceled:
        return "-"
    if job.progress_done is not None:
        if job.progress_total is None:
            text = _("goes on at item %(done)d; nothing saved is repeated")
        else:
            text = _("goes on at %(done)d of %(total)d; nothing saved is repeated")
        return text % {"done": job.progress_done, "total": job.progress_total}
    if job.repeated is None:
        return _("starts from its beginning")
    return _("starts from its beginning: %(seconds)s of work are repeated") % {"seconds": seconds_text(job.repeated)}


def advice(room: Headroom) -> list[str]:
    """What the headroom says, the gravest first."""
    lines = []
    if room.real_period is not None:
        count = len(room.kills)
        text = ngettext(
            "%(count)d worker was killed about %(seconds)s after it was asked to stop: the platform's grace period "
            "is about that long, whatever GRACEFUL_TIMEOUT says.",
            "%(count)d workers were killed about %(seconds)s after they were asked to stop: the platform's grace "
            "period is about that long, whatever GRACEFUL_TIMEOUT says.",
            count,
        )
        lines.append(text % {"count": count, "seconds": seconds_text(room.real_period)})
        if room.period is not None and room.real_period < room.period:
            text = _("GRACEFUL_TIMEOUT is %(period)s: raise the platform's grace period above it, or lower it.")
            lines.append(text % {"period": seconds_text(room.period)})
    if room.drain_most is not None and room.drain_allowed:
        share = room.drain_most / room.drain_allowed
        values = {"seconds": seconds_text(room.drain_most), "allowed": seconds_text(room.drain_allowed)}
        if share >= 1:
            lines.append(_("The drain took up to %(seconds)s, and jobs are interrupted after %(allowed)s.") % values)
        elif share > 0.8:
            lines.append(_("The drain took up to %(seconds)s: close to the %(allowed)s it may take.") % values)
    if room.hooks_most is not None and room.hooks_allowed:
        values = {"seconds": seconds_text(room.hooks_most), "allowed": seconds_text(room.hooks_allowed)}
        if room.hooks_most > 0.8 * room.hooks_allowed:
            lines.append(_("The exit hooks took up to %(seconds)s of the %(allowed)s they may take.") % values)
    return lines


def capacity_words(deploy: Deploy) -> str:
    """The capacity gap in a sentence."""
    capacity = deploy.capacity
    if capacity is None:
        return ""
    if capacity.lowest >= capacity.before:
        text = ngettext(
            "There was never less than %(before)d worker that took jobs.",
            "There were never fewer than %(before)d workers that took jobs.",
            capacity.before,
        )
        return text % {"before": capacity.before}
    text = _("At the lowest, %(lowest)d of %(before)d workers took jobs; for %(seconds)s there were fewer than before.")
    values = {"lowest": capacity.lowest, "before": capacity.before, "seconds": seconds_text(capacity.seconds_below)}
    return text % values


def apart_words(deploy: Deploy) -> str:
    """The shutdowns meanwhile that are no part of it."""
    if not deploy.material.apart:
        return ""
    counts = sorted(deploy.material.apart.items())
    values = {"list": _counts((stored_label(Reason, reason), count) for reason, count in counts)}
    return _("Not counted, since these workers ended of themselves: %(list)s.") % values


def _counts(numbers: Iterable[tuple[str, int]]) -> str:
    return listed(_("%(count)d %(outcome)s") % {"count": number, "outcome": name} for name, number in numbers)
