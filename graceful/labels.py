"""The words of outcomes, reasons and phases as people read them, in the language of the request."""

from __future__ import annotations

from enum import StrEnum

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from graceful.core.attempts import AttemptEnd
from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Phase, Reason
from graceful.core.text import one_line

Label = str | Promise

LABELS: dict[type[StrEnum], dict[str, Label]] = {
    Outcome: {
        Outcome.CLEAN: _("clean"),
        Outcome.INTERRUPTED: _("interrupted"),
        Outcome.HOOKS_FAILED: _("hooks failed"),
        Outcome.FORCED: _("forced"),
        Outcome.CRASHED: _("crashed"),
        Outcome.KILLED: _("killed"),
    },
    Reason: {
        Reason.SIGNAL: _("signal"),
        Reason.BURST: _("burst"),
        Reason.MAX_JOBS: _("max jobs"),
        Reason.IDLE: _("idle"),
        Reason.COMMAND: _("command"),
        Reason.REDIS_LOST: _("Redis lost"),
        Reason.ERROR: _("error"),
        Reason.KILLED: _("killed"),
        Reason.EXIT: _("exit"),
        Reason.MEMORY: _("memory"),
        Reason.AGE: _("age"),
    },
    Phase: {
        Phase.RUNNING: pgettext_lazy("phase", "running"),
        Phase.REQUESTED: pgettext_lazy("phase", "requested"),
        Phase.DRAINING: pgettext_lazy("phase", "draining"),
        Phase.DRAINED: pgettext_lazy("phase", "drained"),
        Phase.HOOKS: pgettext_lazy("phase", "exit hooks"),
        Phase.SEALED: pgettext_lazy("phase", "sealed"),
    },
    HookOutcome: {
        HookOutcome.OK: pgettext_lazy("exit hook", "ok"),
        HookOutcome.FAILED: pgettext_lazy("exit hook", "failed"),
        HookOutcome.TIMED_OUT: pgettext_lazy("exit hook", "timed out"),
        HookOutcome.SKIPPED: pgettext_lazy("exit hook", "skipped"),
    },
    JobOutcome: {
        JobOutcome.RUNNING: pgettext_lazy("job", "running"),
        JobOutcome.FINISHED: pgettext_lazy("job", "finished"),
        JobOutcome.FAILED: pgettext_lazy("job", "failed"),
        JobOutcome.INTERRUPTED: pgettext_lazy("job", "interrupted"),
        JobOutcome.INTERRUPTION_FAILED: pgettext_lazy("job", "interrupted, failed"),
        JobOutcome.KILLED: pgettext_lazy("job", "killed"),
        JobOutcome.RETURNED: pgettext_lazy("job", "not started, requeued"),
        JobOutcome.CANCELED: pgettext_lazy("job", "canceled"),
        JobOutcome.UNKNOWN: pgettext_lazy("job", "unknown"),
    },
    AttemptEnd: {
        AttemptEnd.INTERRUPTED: pgettext_lazy("attempt", "interrupted by a shutdown"),
        AttemptEnd.KILLED: pgettext_lazy("attempt", "killed at the hard limit of a shutdown"),
        AttemptEnd.CUT_OFF: pgettext_lazy("attempt", "cut off by an error of its worker or of Redis"),
        AttemptEnd.CANNOT_START: pgettext_lazy("attempt", "its work horse could not begin"),
        AttemptEnd.WORKER_DIED: pgettext_lazy("attempt", "its worker was killed"),
    },
}
"""One label for each word; a test checks that none is missing."""


def label(word: StrEnum | None) -> str:
    """The word in the current language; a dash for None."""
    return "-" if word is None else str(LABELS[type(word)][word])


def stored_label(words: type[StrEnum], value: str) -> str:
    """The label of a word as it is stored; another value, of a later version for instance, is shown as it is."""
    return str(LABELS[words].get(value) or one_line(value))


def choices(words: type[StrEnum]) -> list[tuple[str, Label]]:
    """The words as choices of a model's field."""
    return [(word.value, LABELS[words][word]) for word in words]
