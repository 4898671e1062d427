"""What a job saves for its next run is in Redis, and does not go back where a transaction of a database does."""

from __future__ import annotations

from django.conf import settings
from django.db import connections, transaction

PROBLEM = (
    "{} must not be within transaction.atomic(), on database {!r}: an interruption or an error would roll back what is "
    "saved as done, and the next run would skip it; put the transaction around the work on each item instead"
)


def must_not_be_open(what: str) -> None:
    """Refuse to go on within a transaction. Those that Django's test cases open do not count.

    Args:
        what: what cannot be done there.

    Raises:
        RuntimeError: a transaction is open, as of ``transaction.atomic(durable=True)``.
    """
    if not settings.configured:  # Job code under a test suite without Django: there are no databases.
        return
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            try:
                # Knows the blocks of test cases (django.db.transaction.Atomic); here it sends nothing to the database.
                with transaction.atomic(using=connection.alias, savepoint=False, durable=True):
                    pass
            except RuntimeError as error:
                raise RuntimeError(PROBLEM.format(what, connection.alias)) from error
