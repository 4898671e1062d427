"""A write-behind buffer: jobs put their results into memory, and one hook at the end of the horse writes them all.

Without the hook they would be gone: RQ's horse leaves by ``os._exit``, so neither ``atexit`` nor a destructor runs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from django.db import transaction

from demo_project.models import IdentifierCount, Package


@dataclass(frozen=True)
class Counts:
    """What a job found in one package."""

    package: str
    files: int
    tokens: int
    names: Counter[str]


_waiting: list[Counts] = []


def add(package: str, *, files: int, tokens: int, names: Counter[str]) -> None:
    """Keep the counts of one package until :func:`flush`."""
    _waiting.append(Counts(package, files, tokens, names))


def flush() -> str | None:
    """Write what waits, and say how much; nothing is said, and nothing done, where nothing waits.

    A package that is already there is left alone, so that a job that runs again after an interruption counts once.
    """
    if not _waiting:
        return None
    rows = 0
    while _waiting:
        counts = _waiting[0]
        with transaction.atomic():
            package, is_new = Package.objects.get_or_create(
                name=counts.package, defaults={"files": counts.files, "tokens": counts.tokens}
            )
            if is_new:
                IdentifierCount.objects.bulk_create(
                    (IdentifierCount(package=package, identifier=name, count=n) for name, n in counts.names.items()),
                    batch_size=2000,
                )
                rows += len(counts.names)
        del _waiting[0]
    return f"wrote {rows} counts"
