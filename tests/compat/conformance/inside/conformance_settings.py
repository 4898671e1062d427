"""Settings of the run."""

import os

SECRET_KEY = "only for tests"
INSTALLED_APPS = ["django_rq", "graceful"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True
TASKS = {"default": {"BACKEND": "conformance.Backend", "QUEUES": ["default", "queue-1"]}}
RQ_QUEUES = {name: {"HOST": "127.0.0.1", "PORT": int(os.environ["COMPAT_PORT"])} for name in ("default", "queue-1")}
