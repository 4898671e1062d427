"""Settings of the runs: as few as Django lets start."""

import os

SECRET_KEY = "only for tests"
INSTALLED_APPS = ["graceful", "compat_app"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["COMPAT_DATABASE"]}}
USE_TZ = True
