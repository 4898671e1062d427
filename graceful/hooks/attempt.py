"""One call of one exit hook, and its result for the report."""

from __future__ import annotations

import traceback
from types import TracebackType

from graceful.core.phases import HookOutcome
from graceful.core.records import HookArgument, HookResult, HookSpec
from graceful.core.text import cut
from graceful.exceptions import HookSkipped, HookTimedOut
from graceful.hooks.calls import INVOKE_CODE, invoke
from graceful.hooks.registry import load, names_missing_module
from graceful.hooks.stacks import Stack, as_text

DETAIL_LIMIT = 500
"""Characters kept of the string that a hook returns."""


class Attempt:
    """One call of one hook."""

    def __init__(self, spec: HookSpec, seconds: float) -> None:
        self.spec = spec
        self.seconds = seconds
        self.outcome = HookOutcome.OK
        self.detail = ""
        self.error: BaseException | None = None
        self.stack: Stack | None = None
        self.abandoned = False

    def note_stack(self, stack: Stack) -> None:
        """The hook timed out; the first stack is the one where it hung."""
        if self.stack is None:
            self.stack = stack

    def abandon(self, stack: Stack) -> None:
        """The hook's thread cannot be interrupted."""
        self.note_stack(stack)
        self.abandoned = True

    def run(self, argument: HookArgument) -> None:
        """Import the hook, ask its ``when`` and call it."""
        try:
            invoke(self._call, argument, self.note_stack)
        except HookSkipped as skipped:
            self.outcome, self.detail = HookOutcome.SKIPPED, cut(_last_line(skipped), DETAIL_LIMIT)
        except BaseException as error:
            self.outcome, self.error = HookOutcome.FAILED, error.with_traceback(_without_runner(error.__traceback__))

    def _call(self, argument: HookArgument) -> None:
        try:
            call = load(self.spec)
            when = None if self.spec.when is None else load(self.spec.when)
        except ModuleNotFoundError as error:
            if self.spec.optional and names_missing_module(self.spec, error):
                raise HookSkipped(str(error)) from error
            raise
        if when is not None and not invoke(when, argument, self.note_stack):
            raise HookSkipped("its condition does not hold")
        returned = invoke(call, argument, self.note_stack)
        if isinstance(returned, str):
            self.detail = cut(returned, DETAIL_LIMIT)

    def result(self, took: float) -> HookResult:
        """The result, once it has ended or was abandoned; ``took`` in seconds."""
        outcome, error, text = self.outcome, "", ""
        if self.stack is not None or isinstance(self.error, HookTimedOut):
            outcome = HookOutcome.TIMED_OUT
            error = f"took longer than {self.seconds:.3g} s" + (" and could not be interrupted" * self.abandoned)
            text = as_text(self.stack or [])
        elif self.error is not None:
            error, text = cut(_last_line(self.error), DETAIL_LIMIT), _traceback(self.error)
        return HookResult(self.spec.name, outcome, took, self.seconds, self.detail, error, cut(text))


_OWN_CODE = {INVOKE_CODE, Attempt.run.__code__, Attempt._call.__code__}


def _without_runner(tb: TracebackType | None) -> TracebackType | None:
    while tb is not None and tb.tb_frame.f_code in _OWN_CODE:
        tb = tb.tb_next
    return tb


def _last_line(error: BaseException) -> str:
    try:
        if isinstance(error, HookSkipped):
            return str(error)
        return "".join(traceback.format_exception_only(error)).strip()
    except BaseException:  # its __str__ may be broken
        return type(error).__name__


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:  # or that of its cause
        return "".join(traceback.format_tb(error.__traceback__))
