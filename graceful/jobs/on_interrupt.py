"""What becomes of a job that a shutdown interrupted, said by the job itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, cast, get_args

log = logging.getLogger("graceful.jobs")
Policy = Literal["requeue", "fail"]
POLICIES: tuple[str, ...] = get_args(Policy)
ATTRIBUTE = "graceful_on_interrupt"
META_KEY = "graceful_on_interrupt"
"""Key in ``job.meta`` that says it for one job alone, above the decorator and the setting."""

MOST_LAYERS = 100
"""Wrappers that are looked through; nobody has so many, but two that wrap each other never end."""
INNER = ("func", "__wrapped__", "__func__")
"""What lies below: of a ``functools.partial`` and of a Django Task (``django.tasks.base.Task``, ``django_tasks.Task``),
of ``functools.wraps``, and of a bound method."""

# Not bound to Callable: a Django Task is decorated too, and cannot be called.
F = TypeVar("F")


def on_interrupt(policy: Policy) -> Callable[[F], F]:
    """Decorator of a job function, or of a Django Task: what to do when a shutdown interrupts it.

    It goes before ``GRACEFUL_INTERRUPTED_JOBS``; ``job.meta["graceful_on_interrupt"]`` goes before it.

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
        # A Task is frozen and a bound method takes no attribute: it is said of the function below.
        target: Any = function
        for _ in range(MOST_LAYERS):
            # What is set on a staticmethod or classmethod object is not seen on what it gives out.
            target = getattr(target, "__func__", target)
            try:
                setattr(target, ATTRIBUTE, policy)
                return function
            except (AttributeError, TypeError):
                target = _inner(target)
        raise TypeError(f"on_interrupt decorates a function or a task, got: {function!r:.200}")

    return decorate


def policy_of(function: object, meta: Mapping[str, Any] | None) -> Policy | None:
    """What a job says of its interruption, or None where it says nothing.

    Never raises: it is asked while a worker is coming to its end, and a wrong word in ``meta`` counts as none.

    Args:
        function: the job's function, None where it could not be imported. The outermost word counts. It is also found
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
    """An attribute, or None where there is none: a job's function may be any object."""
    try:
        return getattr(layer, name, None)
    except Exception:
        return None


def _known(said: object) -> bool:
    return isinstance(said, str) and said in POLICIES
