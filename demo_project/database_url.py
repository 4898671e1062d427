"""A database URL in Django's form, and back; no package is needed for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

ENGINES = {"postgres": "postgresql", "postgresql": "postgresql", "mysql": "mysql"}


def database_from_url(url: str) -> dict[str, Any]:
    """The ``DATABASES`` entry for ``sqlite://`` (in memory), ``sqlite:///path``, ``postgres://...`` or ``mysql://...``.

    A query string becomes ``OPTIONS``; the unix socket of PostgreSQL (its directory) or MariaDB goes into ``?host=``.

    Raises:
        ValueError: another scheme.
    """
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        name = parts.path[1:] if parts.path.startswith("//") else parts.path
        # A second process that writes is waited for, as PostgreSQL would.
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": name or ":memory:", "OPTIONS": {"timeout": 20}}
    if parts.scheme in ENGINES:
        options: dict[str, Any] = dict(parse_qsl(parts.query))
        return {
            "ENGINE": f"django.db.backends.{ENGINES[parts.scheme]}",
            "NAME": unquote(parts.path.removeprefix("/")),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": options.pop("host", parts.hostname or ""),
            "PORT": str(parts.port or ""),
            "OPTIONS": options,
        }
    raise ValueError(f"DATABASE_URL must begin with sqlite:, postgres: or mysql:, got: {parts.scheme!r}")


def url_of_database(entry: Mapping[str, Any]) -> str:
    """The URL that :func:`database_from_url` reads as ``entry``; its ``OPTIONS`` are left out."""
    if entry["ENGINE"].endswith("sqlite3"):
        return f"sqlite:///{entry['NAME']}"
    scheme = "mysql" if entry["ENGINE"].endswith("mysql") else "postgres"
    user = quote(str(entry["USER"]), safe="")
    password = quote(str(entry["PASSWORD"]), safe="")
    port = f":{entry['PORT']}" if entry["PORT"] else ""
    host = str(entry["HOST"])
    if host.startswith("/"):
        return f"{scheme}://{user}:{password}@{port}/{quote(str(entry['NAME']))}?host={quote(host, safe='')}"
    return f"{scheme}://{user}:{password}@{host}{port}/{quote(str(entry['NAME']))}"
