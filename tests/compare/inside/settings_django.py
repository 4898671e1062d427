"""Django settings of the peers that are Django apps: django-rq with and without this package, and django-tasks-db.

Environment:
    COMPARE_APP: ``ours``, ``stock`` or ``tasks_db``.
    COMPARE_BROKER: the URL of Redis, or the directory of PostgreSQL's socket.
    COMPARE_RUN: a directory for the database file.
    COMPARE_BUDGET: seconds that a stop may take.
"""

from __future__ import annotations

import atexit
import os

import work

APP = os.environ["COMPARE_APP"]
BROKER = os.environ["COMPARE_BROKER"]

SECRET_KEY = "compare"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
LOGGING_CONFIG = None

if APP == "tasks_db":
    INSTALLED_APPS += ["django_tasks", "django_tasks_db"]
    TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "graceful",
            "USER": "graceful",
            "HOST": BROKER,
        }
    }
else:
    INSTALLED_APPS += ["django_rq"]
    RQ_QUEUES = {"default": {"URL": BROKER}}
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["COMPARE_RUN"] + "/db.sqlite3"}}

if APP == "ours":
    INSTALLED_APPS += ["graceful"]
    GRACEFUL_EXIT_HOOKS = ["work.hook"]
    GRACEFUL_TIMEOUT = float(os.environ["COMPARE_BUDGET"])
    GRACEFUL_HOOKS_TIMEOUT = 2
    GRACEFUL_INTERRUPT_TIMEOUT = 1
    GRACEFUL_SPOOL_DIR = os.environ["COMPARE_RUN"] + "/spool"
else:
    # Neither has hooks of its own.
    atexit.register(work.hook)
