"""Django settings of the test suite, of its worker processes, and of the type checker.

Environment:
    DATABASE_URL: ``sqlite:///path`` or ``postgres://user:password@host:port/name``; SQLite in memory without it.
    TEST_REDIS_URL: the server that the queues are on; the fixture ``valkey`` sets it.
    TEST_RUN_DIR: where files of this run go; worker processes are given the one of their test process.
    TEST_GRACEFUL_SETTINGS: JSON object of settings, whichever a test wants to set in a process of its own.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from demo_project.database_url import database_from_url

# Several runs may go on in one checkout, each of them in several processes: everything on disk has a place per process.
_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid()}")[:12]
_XDIST_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
RUN_DIR = Path(os.environ.get("TEST_RUN_DIR", f"{tempfile.gettempdir()}/graceful-tests-{_RUN}-{_XDIST_WORKER}"))

SECRET_KEY = "for tests only"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "tests.urls"
STATIC_URL = "/static/"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_rq",
    "graceful",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# The test database is a real one, on disk or in PostgreSQL, so that worker processes of a test see it too.
DATABASES: dict[str, dict[str, Any]] = {"default": database_from_url(os.environ.get("DATABASE_URL", "sqlite://"))}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["TEST"] = {"NAME": str(RUN_DIR / "test.sqlite3")}
else:
    DATABASES["default"]["TEST"] = {"NAME": f"test_graceful_{_RUN}"}

TEST_REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:1/0")
RQ_QUEUES: dict[str, dict[str, Any]] = {
    name: {"URL": TEST_REDIS_URL, "DEFAULT_TIMEOUT": 60} for name in ("default", "high", "low")
}

GRACEFUL_SPOOL_DIR = str(RUN_DIR / "spool")

globals().update(json.loads(os.environ.get("TEST_GRACEFUL_SETTINGS", "{}")))
