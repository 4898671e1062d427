"""What becomes of a job that a shutdown interrupted, said by the job itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, TypeVar, cast, get_args

log = logging.getLogger("graceful.jobs")
Policy = Literal["requeue", "fail"]
POLICIES: tuple[str, ...] = get_args(Policy)
ATTRIBUTE = "graceful_on_interrupt"
META_KEY = "graceful_on_interrupt"
"""Key in ``job.meta`` that says it for one job alone, above the decorator and the setting."""

F = TypeVar("F", bound=Callable[..., Any])


def on_interrupt(policy: Policy) -> Callable[[F], F]:
    """Decorator of a job function: what to do when a shutdown interrupts it.

    It goes before ``GRACEFUL_INTERRUPTED_JOBS``; ``job.meta["graceful_on_interrupt"]`` goes before it.

    Args:
        policy: ``"requeue"`` puts the job back at the front of its queue; ``"fail"`` fails it, with RQ's retries and
            failure callback as for any failure: for jobs that must not be started twice.

    Raises:
        ValueError: the policy is neither of the two.
    """
    if not isinstance(policy, str) or policy not in POLICIES:
        hint = "; write @on_interrupt(...) with one of them" if callable(policy) else ""
        raise ValueError(f'on_interrupt takes "requeue" or "fail", got: {policy!r}{hint}')

    def decorate(function: F) -> F:
        setattr(function, ATTRIBUTE, policy)
        return function

    return decorate


def policy_of(function: Callable[..., Any] | None, meta: Mapping[str, Any] | None) -> Policy | None:
    """What a job says of its interruption, or None where it says nothing.

    Never raises: it is asked while a worker is coming to its end, and a wrong word in ``meta`` counts as none.

    Args:
        function: the job's function, None where it could not be imported. Other decorators do not hide the policy as
            long as they use ``functools.wraps``; of a bound method and a ``functools.partial`` it is the function's.
        meta: the job's ``meta``.
    """
    said: object = meta.get(META_KEY) if isinstance(meta, Mapping) else None
    if _known(said):
        return cast(Policy, said)
    if said is not None:
        log.warning('job.meta["%s"] must be "requeue" or "fail", got: %.100r', META_KEY, said)
    while isinstance(function, partial) and not hasattr(function, ATTRIBUTE):
        function = function.func
    said = getattr(function, ATTRIBUTE, None)
    return cast(Policy, said) if _known(said) else None


def _known(said: object) -> bool:
    return isinstance(said, str) and said in POLICIES
