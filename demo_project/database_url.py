"""A database URL in Django's form, and back; no package is needed for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit


def database_from_url(url: str) -> dict[str, Any]:
    """The ``DATABASES`` entry for ``sqlite://`` (in memory), ``sqlite:///path`` or ``postgres://...``.

    A query string becomes ``OPTIONS``; PostgreSQL's unix socket directory goes into ``?host=``.

    Raises:
        ValueError: another scheme.
    """
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        name = parts.path[1:] if parts.path.startswith("//") else parts.path
        # A second process that writes is waited for, as PostgreSQL would.
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": name or ":memory:", "OPTIONS": {"timeout": 20}}
    if parts.scheme in ("postgres", "postgresql"):
        options: dict[str, Any] = dict(parse_qsl(parts.query))
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(parts.path.removeprefix("/")),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": options.pop("host", parts.hostname or ""),
            "PORT": str(parts.port or ""),
            "OPTIONS": options,
        }
    raise ValueError(f"DATABASE_URL must begin with sqlite: or postgres:, got: {parts.scheme!r}")


def url_of_database(entry: Mapping[str, Any]) -> str:
    """The URL that :func:`database_from_url` reads as ``entry``; its ``OPTIONS`` are left out."""
    if entry["ENGINE"].endswith("sqlite3"):
        return f"sqlite:///{entry['NAME']}"
    user = quote(str(entry["USER"]), safe="")
    password = quote(str(entry["PASSWORD"]), safe="")
    port = f":{entry['PORT']}" if entry["PORT"] else ""
    host = str(entry["HOST"])
    if host.startswith("/"):
        return f"postgres://{user}:{password}@{port}/{quote(str(entry['NAME']))}?host={quote(host, safe='')}"
    return f"postgres://{user}:{password}@{host}{port}/{quote(str(entry['NAME']))}"
