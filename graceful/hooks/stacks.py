"""Stacks, recorded cheaply, even in a signal handler, and formatted later."""

from __future__ import annotations

import traceback
from types import CodeType, FrameType

Stack = list[tuple[CodeType, int | None]]
"""Code and line of each frame, innermost first."""


def frame_stack(frame: FrameType | None, below: CodeType | None = None) -> Stack:
    """The stack at a frame.

    Args:
        frame: the innermost frame.
        below: stop before the frame of this code, which is not the hook's; unless no frame is above it, because a
            C function hangs.
    """
    stack: Stack = []
    while frame is not None and (frame.f_code is not below or not stack):
        stack.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return stack


def coroutine_stack(coroutine: object) -> Stack:
    """The stack of a coroutine that waits, down to the one that it awaits."""
    stack: Stack = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is None:
            break
        stack.append((frame.f_code, frame.f_lineno))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    stack.reverse()
    return stack


def as_text(stack: Stack) -> str:
    """The stack formatted as a traceback, most recent call last."""
    lines = [
        traceback.FrameSummary(code.co_filename, line, code.co_name, lookup_line=False)
        for code, line in reversed(stack)
    ]
    return "Stack where it hung (most recent call last):\n" + "".join(traceback.StackSummary.from_list(lines).format())
