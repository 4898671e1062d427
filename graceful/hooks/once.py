"""Exit hooks run once per process: whoever runs them claims that first."""

from __future__ import annotations

import os

_claims: dict[int, object] = {}


def claim() -> bool:
    """Claim this process's exit hooks; False if somebody has them already. A forked child has its own."""
    token = object()
    # One bytecode, so no two threads both get it, and no lock that a fork could leave locked.
    return _claims.setdefault(os.getpid(), token) is token


def release() -> None:
    """Give the claim back, for a process that lives on and may come to an end again, as a test runner does."""
    _claims.pop(os.getpid(), None)
