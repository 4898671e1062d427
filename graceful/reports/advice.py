"""Advice from the stored reports: which grace period would have interrupted nothing, which jobs and hooks to change.

:func:`advise` decides and words it, from :class:`~graceful.reports.figures.Figures` alone; it says nothing where there
are too few.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from graceful.core.text import one_line
from graceful.reports.figures import Figures, FunctionCost, HookRuns, Need, figures
from graceful.reports.platforms import Platform
from graceful.reports.rows import local_time
from graceful.reports.sentences import listed, sentences

PERIOD = timedelta(days=30)
ENOUGH_SHUTDOWNS = 20
ENOUGH_INTERRUPTIONS = 3
"""Of the jobs of one function, before ``resumable`` is recommended."""
ENOUGH_RUNS = 20
"""Of one hook, before its timeout is judged."""
ENOUGH_TIME_OUTS = 2
MARGIN_SECONDS = 5
"""Between the end of the worker's grace period and that of its platform, as the README recommends."""
LONGEST_GRACE_SECONDS = 600
"""A longer grace period is no advice: a deploy would have to wait for it."""
HEROKU_SECONDS = 30
MOST_NAMES = 3
LONGEST_NAME = 120
WIDTH = 100
"""Of a line in a terminal."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One piece of advice.

    Args:
        about: ``"grace"``, ``"killed"``, ``"jobs"`` or ``"hooks"``.
        warning: whether something should be changed; otherwise it says that all is well.
        text: the advice, in whole sentences and in the current language.
        basis: the figures that it stands on, as a sentence.
    """

    about: str
    warning: bool
    text: str
    basis: str


def advice_for(period: timedelta = PERIOD, using: str | None = None) -> tuple[Advice, ...]:
    """The advice of a period that ends now, the most important first; empty where there are too few shutdowns.

    Args:
        period: how far back to look.
        using: alias of the database; None: where reports are read.

    Raises:
        django.db.DatabaseError: the database is unreachable, or its tables are missing.
    """
    return advise(figures(period, using))


def advise(found: Figures) -> tuple[Advice, ...]:
    """What these figures recommend."""
    given = [*_killed(found)]
    if found.shutdowns >= ENOUGH_SHUTDOWNS:
        given += [*_grace(found), *_jobs(found)]
    return (*given, *(_hook(runs) for runs in found.hook_runs if _is_slow(runs)))


def advice_text(advice: Iterable[Advice]) -> str:
    """The advice for a terminal, each piece with what it stands on."""
    return "\n\n".join(
        "\n".join(
            (
                *textwrap.wrap(each.text, WIDTH, initial_indent="* ", subsequent_indent="  "),
                *textwrap.wrap(each.basis, WIDTH, initial_indent="  ", subsequent_indent="  "),
            )
        )
        for each in advice
    )


def _killed(found: Figures) -> Iterable[Advice]:
    if found.grace_over:
        grace = found.grace.period or 0.0
        text = ngettext(
            "%(number)d worker was probably killed because the platform's grace period was over.",
            "%(number)d workers were probably killed because the platform's grace period was over.",
            found.grace_over,
        ) % {"number": found.grace_over}
        basis = _("From the reports of workers that were killed at least 8 s after a shutdown was requested.")
        yield Advice("killed", True, sentences((text, _platform(found.platform, grace))), basis)


def _grace(found: Figures) -> Iterable[Advice]:
    basis = _basis(found)
    drain, drain_cut = _percentile(found.needs, 0.99)
    hooks, _exact = _percentile([Need(seconds) for seconds in found.hooks], 0.99)
    words = {
        "drain": _seconds(drain),
        "hooks": _seconds(hooks),
        "grace": _seconds(found.grace.period or 0.0),
        "interrupted": found.interrupted,
        "jobs": found.jobs,
        "share": percent(found.interrupted, found.jobs),
    }
    if not found.interrupted:
        text = _(
            "No job was interrupted: drain p99 is %(drain)s, hooks p99 %(hooks)s, of a GRACEFUL_TIMEOUT of %(grace)s."
        )
        yield Advice("grace", False, text % words, basis)
        return
    said = (
        _(
            "Drain p99 is at least %(drain)s, hooks p99 %(hooks)s: with a GRACEFUL_TIMEOUT of %(grace)s, %(share)s of "
            "the jobs in flight were interrupted (%(interrupted)d of %(jobs)d)."
        )
        if drain_cut
        else _(
            "Drain p99 is %(drain)s, hooks p99 %(hooks)s: with a GRACEFUL_TIMEOUT of %(grace)s, %(share)s of "
            "the jobs in flight were interrupted (%(interrupted)d of %(jobs)d)."
        )
    )
    yield Advice("grace", True, sentences((said % words, _enough(found))), basis)


def _enough(found: Figures) -> str:
    """Which grace period would have interrupted none, and what the platform has to wait then."""
    longest = max((need.seconds for need in found.needs), default=0.0)
    cut_off = sum(need.at_least for need in found.needs)
    grace = found.grace.period or 0.0
    needed = math.ceil(longest + (found.grace.hooks or 0.0) + (found.grace.interrupt or 0.0))
    words = {"needed": _seconds(needed), "longest": _seconds(longest), "number": cut_off, "grace": _seconds(grace)}
    if longest > LONGEST_GRACE_SECONDS:
        text = _(
            "The longest would have needed %(longest)s after the signal, which is too long for a deploy: make it "
            "resumable."
        )
        return text % words
    if needed <= grace or (cut_off and needed <= grace + 1):
        return _("How much more time they need is not known: they were cut off.")
    platform = _platform(found.platform, needed)
    if cut_off:
        text = ngettext(
            "At least %(needed)s would have been needed to interrupt none: in %(number)d shutdown nothing tells how "
            "much longer the job would have taken.",
            "At least %(needed)s would have been needed to interrupt none: in %(number)d shutdowns nothing tells how "
            "much longer the jobs would have taken.",
            cut_off,
        )
    else:
        text = _("%(needed)s would have interrupted none.")
    return sentences((text % words, platform))


def _platform(platform: Platform, grace: float) -> str:
    """What the platform has to wait with a grace period of so many seconds, as in the README's table."""
    least = math.ceil(grace + MARGIN_SECONDS)
    words = {"least": least, "grace": _seconds(grace)}
    if platform is Platform.KUBERNETES:
        text = _(
            "With a GRACEFUL_TIMEOUT of %(grace)s, Kubernetes' terminationGracePeriodSeconds must be at least "
            "%(least)d (30 unless set; a preStop hook counts against it)."
        )
    elif platform is Platform.HEROKU and least > HEROKU_SECONDS:
        text = _("Heroku waits 30 s and no longer: GRACEFUL_TIMEOUT can be 25 at most.")
    elif platform is Platform.HEROKU:
        text = _("Heroku waits 30 s, which is enough for a GRACEFUL_TIMEOUT of %(grace)s.")
    elif platform is Platform.ECS:
        text = _(
            "With a GRACEFUL_TIMEOUT of %(grace)s, ECS' stopTimeout must be at least %(least)d (30 unless set; Fargate "
            "allows 120 at most)."
        )
    elif platform is Platform.SYSTEMD:
        text = _(
            "With a GRACEFUL_TIMEOUT of %(grace)s, systemd's TimeoutStopSec= must be at least %(least)d (90 "
            "unless set)."
        )
    else:
        text = _(
            "With a GRACEFUL_TIMEOUT of %(grace)s, the platform must wait at least %(least)d s before SIGKILL (Docker "
            "waits 10 unless told otherwise, Kubernetes and ECS 30, systemd 90)."
        )
    return text % words


def _jobs(found: Figures) -> Iterable[Advice]:
    worst = [each for each in found.functions if each.interrupted >= ENOUGH_INTERRUPTIONS][:MOST_NAMES]
    if worst:
        text = _(
            "These jobs were interrupted most and started again from the beginning: %(jobs)s. resumable() keeps what "
            "they have done."
        )
        yield Advice("jobs", True, text % {"jobs": listed(map(_function, worst))}, _basis(found))


def _function(cost: FunctionCost) -> str:
    words = {"function": _name(cost.function), "number": cost.interrupted, "repeated": _seconds(cost.repeated_seconds)}
    if cost.repeated_seconds >= 1:
        text = ngettext(
            "%(function)s (%(number)d time, %(repeated)s of work repeated)",
            "%(function)s (%(number)d times, %(repeated)s of work repeated)",
            cost.interrupted,
        )
    else:
        text = ngettext("%(function)s (%(number)d time)", "%(function)s (%(number)d times)", cost.interrupted)
    return text % words


def _is_slow(hook: HookRuns) -> bool:
    return hook.runs >= ENOUGH_RUNS and hook.timed_out >= ENOUGH_TIME_OUTS


def _hook(hook: HookRuns) -> Advice:
    words = {
        "hook": _name(hook.name),
        "timed_out": hook.timed_out,
        "share": percent(hook.timed_out, hook.runs),
        "allowed": _seconds(hook.allowed),
        "p95": _seconds(hook.p95 or 0.0),
    }
    text = _("The hook %(hook)s timed out %(timed_out)d times (%(share)s), after %(allowed)s on average.")
    if hook.p95 is None:
        why = _("It never succeeded: see where it hangs in the reports' stacks.")
    elif hook.p95 <= hook.allowed / 2:
        why = _("Otherwise p95 is %(p95)s: it hangs rather than being slow, and more time would not help.")
    else:
        why = _("Otherwise p95 is %(p95)s: raise its timeout, and GRACEFUL_HOOKS_TIMEOUT with it, or make it faster.")
    basis = ngettext("From %(number)d run of it.", "From %(number)d runs of it.", hook.runs)
    return Advice("hooks", True, sentences((text % words, why % words)), basis % {"number": hook.runs})


def _basis(found: Figures) -> str:
    if found.since is None or found.until is None:
        return ""
    text = ngettext(
        "From %(number)d shutdown with this grace period, between %(since)s and %(until)s.",
        "From %(number)d shutdowns with this grace period, between %(since)s and %(until)s.",
        found.shutdowns,
    )
    days = [f"{local_time(moment):%Y-%m-%d}" for moment in (found.since, found.until)]
    return text % {"number": found.shutdowns, "since": days[0], "until": days[1]}


def _percentile(needs: Sequence[Need], share: float) -> tuple[float, bool]:
    """The exact percentile, and whether it is only a lower bound: one was cut off there or before."""
    if not needs:
        return 0.0, False
    ordered = sorted(need.seconds for need in needs)
    value = ordered[max(0, math.ceil(share * len(ordered)) - 1)]
    return value, any(need.at_least and need.seconds <= value for need in needs)


def _seconds(seconds: float) -> str:
    if seconds >= 9.95 or seconds == round(seconds):
        return f"{seconds:.0f} s"
    return f"{seconds:.1f} s" if seconds >= 0.095 else f"{seconds:.2f} s"


def percent(part: int, whole: int) -> str:
    """One digit after the point, and never rounded to nothing or to all."""
    percent = 100 * part / whole if whole > 0 else 0.0
    if 0 < percent < 0.1:
        return "< 0.1 %"
    return f"{min(percent, 99.9) if part < whole else percent:.1f} %"


def _name(name: str) -> str:
    shown = one_line(name)
    return shown if len(shown) <= LONGEST_NAME else f"{shown[:LONGEST_NAME]}..."
