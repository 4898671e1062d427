"""A graceful worker is an RQ worker also outside ``work()``: its methods may be called by themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])


def at_work(method: Method) -> Method:
    """Ours while the worker is at work; otherwise the method of the class below, which is RQ's or a user's.

    A test, a subclass or a script may call ``prepare_execution``, ``execute_job``, ``perform_job``, ``heartbeat`` and
    the like without ``work()``, as with a stock worker: then there is no shutdown to prepare for. The same holds for
    the objects that ``Worker.all()`` and ``Worker.find_by_key()`` return, which stand for workers of other processes.
    """
    return cast(Method, _AtWork(method))


class _AtWork:
    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method

    def __set_name__(self, owner: type, name: str) -> None:
        method = self._method

        @functools.wraps(method)
        def either(worker: Any, *args: Any, **kwargs: Any) -> Any:
            if worker.is_at_work:
                return method(worker, *args, **kwargs)
            return getattr(super(owner, worker), name)(*args, **kwargs)

        setattr(owner, name, either)
