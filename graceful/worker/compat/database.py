"""Django's database connections, as far as a worker and its children have to do with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import connections

from graceful.hooks.builtin import has_pool


def close_database_connections() -> None:
    """Close what a child must not inherit: connections, and pools with their threads."""
    opened: Iterable[Any] = connections.all(initialized_only=True)
    for connection in opened:
        connection.close()
        if has_pool(connection):
            connection.close_pool()
