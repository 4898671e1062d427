"""A job's own policy: whether an interruption requeues it or fails it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, cast, get_args

log = logging.getLogger("graceful.jobs")
Policy = Literal["requeue", "fail"]
POLICIES: tuple[str, ...] = get_args(Policy)
ATTRIBUTE = "graceful_on_interrupt"
META_KEY = "graceful_on_interrupt"
"""Key in ``job.meta`` for the policy of one job; overrides the decorator and the setting."""

MOST_LAYERS = 100
"""Wrappers that are unwrapped at most: two that wrap each other would never end."""
INNER = ("func", "__wrapped__", "__func__")
"""Attributes that lead to the wrapped function: of a ``functools.partial`` and of a Django Task
(``django.tasks.base.Task``, ``django_tasks.Task``), of ``functools.wraps``, and of a bound method."""

# Not bound to Callable: a Django Task is decorated too, and cannot be called.
F = TypeVar("F")


def on_interrupt(policy: Policy) -> Callable[[F], F]:
    """Decorator of a job function, or of a Django Task: what to do when a shutdown interrupts it.

    It overrides ``GRACEFUL_INTERRUPTED_JOBS``; ``job.meta["graceful_on_interrupt"]`` overrides it.

    Args:
        policy: ``"requeue"`` puts the job back at the front of its queue; ``"fail"`` fails it for good, with its
            failure callback but without RQ's retries: for jobs that must not be started twice.

    Raises:
        ValueError: the policy is neither of the two.
    """
    if not isinstance(policy, str) or policy not in POLICIES:
        hint = "; write @on_interrupt(...) with one of them" if callable(policy) else ""
        raise ValueError(f'on_interrupt takes "requeue" or "fail", got: {policy!r}{hint}')

    def decorate(function: F) -> F:
        # A Task is frozen and a bound method takes no attributes: the wrapped function gets it.
        target: Any = function
        for _ in range(MOST_LAYERS):
            # An attribute of a staticmethod or classmethod object is not visible on the function that it returns.
            target = getattr(target, "__func__", target)
            try:
                setattr(target, ATTRIBUTE, policy)
                return function
            except (AttributeError, TypeError):
                target = _inner(target)
        raise TypeError(f"on_interrupt decorates a function or a task, got: {function!r:.200}")

    return decorate


def policy_of(function: object, meta: Mapping[str, Any] | None) -> Policy | None:
    """A job's own policy, or None if it has none.

    Never raises: it is read during a shutdown, and an invalid value in ``meta`` counts as none.

    Args:
        function: the job's function, None if it could not be imported. The outermost policy counts. It is also found
            below decorators that use ``functools.wraps``, a ``functools.partial``, a bound method, and a Django Task.
        meta: the job's ``meta``.
    """
    said: object = meta.get(META_KEY) if isinstance(meta, Mapping) else None
    if _known(said):
        return cast(Policy, said)
    if said is not None:
        log.warning('job.meta["%s"] must be "requeue" or "fail", got: %.100r', META_KEY, said)
    layer: Any = function
    for _ in range(MOST_LAYERS):
        if layer is None:
            break
        said = _attribute(layer, ATTRIBUTE)
        if _known(said):
            return cast(Policy, said)
        layer = _inner(layer)
    return None


def _inner(layer: object) -> Any:
    """What ``layer`` wraps, or None."""
    return next((inner for name in INNER if callable(inner := _attribute(layer, name))), None)


def _attribute(layer: object, name: str) -> Any:
    """An attribute, or None: a job's function may be any object."""
    try:
        return getattr(layer, name, None)
    except Exception:
        return None


def _known(said: object) -> bool:
    return isinstance(said, str) and said in POLICIES
