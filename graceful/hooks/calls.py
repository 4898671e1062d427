"""How an exit hook is called: with or without its argument, as a plain or an ``async`` function."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from types import CodeType, FrameType

from graceful.core.records import HookArgument
from graceful.exceptions import HookTimedOut
from graceful.hooks.stacks import Stack, coroutine_stack

ASYNC_MARGIN = 0.05
"""An ``async`` hook is cancelled this many seconds (or a tenth of its time) before the alarm would end it,
so that its ``finally`` blocks run."""


def wants_shutdown(call: Callable[..., object]) -> bool:
    """Whether the hook is called with its argument, the :class:`~graceful.core.records.Shutdown` of an exit hook.

    It is if it requires one argument, or has a parameter named ``shutdown``. Other parameters with defaults are left
    alone: ``pool.close(timeout=5)`` is a hook without arguments.

    Raises:
        TypeError: it can be called neither without arguments nor with one, or not at all.
    """
    try:
        signature = inspect.signature(call)
    except ValueError:  # some C functions have no signature
        return False
    if not _binds(signature):
        if _binds(signature, None) or _binds(signature, shutdown=None):
            return True
        raise TypeError(f"a hook takes no argument, or one (the Shutdown), got: {signature}")
    named = signature.parameters.get("shutdown")
    return named is not None and named.kind not in (named.VAR_POSITIONAL, named.VAR_KEYWORD)


def invoke(call: Callable[..., object], shutdown: HookArgument, on_async_timeout: Callable[[Stack], None]) -> object:
    """Call a hook and wait for it if it is ``async``; its exceptions propagate.

    The alarm raises only while this frame is on the stack: everything in here is within the caller's ``try``.

    Args:
        call: the hook.
        shutdown: passed to the hook; its deadline is the hook's.
        on_async_timeout: called with the stack of an ``async`` hook that has to be cancelled.

    Raises:
        HookTimedOut: an ``async`` hook took longer than it may.
    """
    if not wants_shutdown(call):
        result = call()
    elif _binds(inspect.signature(call), None):
        result = call(shutdown)
    else:
        result = call(shutdown=shutdown)
    if inspect.isawaitable(result):
        return asyncio.run(_awaited(result, shutdown, on_async_timeout))
    return result


INVOKE_CODE: CodeType = invoke.__code__


def inside_invoke(frame: FrameType | None) -> bool:
    """Whether a hook is being called at this frame."""
    while frame is not None:
        if frame.f_code is INVOKE_CODE:
            return True
        frame = frame.f_back
    return False


def _binds(signature: inspect.Signature, *args: object, **kwargs: object) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


async def _awaited(
    awaitable: Awaitable[object], shutdown: HookArgument, on_async_timeout: Callable[[Stack], None]
) -> object:
    left = shutdown.time_left()
    task = asyncio.ensure_future(awaitable)
    done, _ = await asyncio.wait({task}, timeout=left - min(ASYNC_MARGIN, left / 10))
    if not done:
        if isinstance(task, asyncio.Task):
            on_async_timeout(coroutine_stack(task.get_coro()))
        # asyncio.run() cancels the task on the way out and waits for its finally blocks.
        raise HookTimedOut("the hook's time is up")
    return task.result()
