"""Settings of the demo. REDIS_URL and DATABASE_URL put real servers in the place of the embedded ones."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from demo_project.database_url import database_from_url

BASE_DIR = Path(__file__).resolve().parent.parent
STATE_DIR = BASE_DIR / ".demo"
STATE_DIR.mkdir(exist_ok=True)

_secret = STATE_DIR / "secret_key"
if not _secret.exists():
    _secret.touch(mode=0o600)
    _secret.write_text(secrets.token_urlsafe(40))
SECRET_KEY = _secret.read_text()

# The demo serves on the loopback address only, and itself serves the admin's static files.
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "demo_project.urls"
WSGI_APPLICATION = "demo_project.wsgi.application"
STATIC_URL = "static/"
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
    "demo_project",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
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

DATABASE_URL = os.environ.get("DATABASE_URL") or f"sqlite:///{STATE_DIR / 'db.sqlite3'}"
DATABASES: dict[str, dict[str, Any]] = {"default": database_from_url(DATABASE_URL)}
if DATABASES["default"]["ENGINE"].endswith("postgresql"):
    DATABASES["default"]["OPTIONS"]["pool"] = {"min_size": 1, "max_size": 4}

QUEUE = "graceful-demo"
REDIS_URL = os.environ.get("REDIS_URL") or "redis://127.0.0.1:6379/0"
RQ_QUEUES = {QUEUE: {"URL": REDIS_URL, "DEFAULT_TIMEOUT": 60}}

GRACEFUL_TIMEOUT = 20
GRACEFUL_RELEASE = os.environ.get("RELEASE", "demo-1")
GRACEFUL_HORSE_EXIT_HOOKS = ["demo_project.buffer.flush"]
GRACEFUL_EXIT_HOOKS = [
    "graceful.hooks.builtin.stop_threads",
    {"call": "demo_project.pool.close_pool", "name": "samples.close_pool", "timeout": 2},
    "graceful.hooks.builtin.save_worker_statistics",
    {"call": "graceful.hooks.builtin.flush_sentry", "optional": True},
    "graceful.hooks.builtin.close_caches",
    "graceful.hooks.builtin.close_database_connections",
]
