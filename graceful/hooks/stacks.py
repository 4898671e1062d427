"""Where code stands: stacks noted cheaply, even in a signal handler, and turned to text later."""

from __future__ import annotations

import traceback
from types import CodeType, FrameType

Stack = list[tuple[CodeType, int | None]]
"""Code and line of each frame, innermost first."""


def frame_stack(frame: FrameType | None, below: CodeType | None = None) -> Stack:
    """The stack at a frame.

    Args:
        frame: the innermost frame.
        below: end at the frame of this code and leave it out, since it is of no interest to the reader; unless
            nothing is above it, because it is a function written in C that hangs.
    """
    stack: Stack = []
    while frame is not None and (frame.f_code is not below or not stack):
        stack.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return stack


def coroutine_stack(coroutine: object) -> Stack:
    """The stack of a coroutine that waits, down to what it waits for."""
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
    """The stack as a traceback shows it, most recent call last."""
    lines = [
        traceback.FrameSummary(code.co_filename, line, code.co_name, lookup_line=False)
        for code, line in reversed(stack)
    ]
    return "Stack where it hung (most recent call last):\n" + "".join(traceback.StackSummary.from_list(lines).format())
