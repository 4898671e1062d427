"""Try the built wheel in an environment that holds nothing else: ``python wheel_check.py WHEEL CHECKOUT``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SETTINGS = """
SECRET_KEY = "x"
USE_TZ = True
ROOT_URLCONF = "fresh_urls"
STATIC_URL = "static/"
INSTALLED_APPS = [
    "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    "django.contrib.messages", "django.contrib.staticfiles", "django_rq", "graceful",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "OPTIONS": {
    "context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ],
}}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "fresh.sqlite3"}}
RQ_QUEUES = {"default": {"HOST": "127.0.0.1", "PORT": 6379}}
"""
URLS = """
from django.contrib import admin
from django.urls import path
urlpatterns = [path("admin/", admin.site.urls)]
"""
IMPORT_IS_LIGHT = """
import sys
import graceful
loaded = [name for name in ("rq", "django_rq", "redis", "graceful.models") if name in sys.modules]
assert not loaded, f"import graceful loads {loaded}"
"""
PAGES_ARE_SERVED = """
import django
django.setup()
from django.apps import apps
from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
from django.test import Client
from django.urls import reverse
from pathlib import Path
user = User.objects.create_superuser("fresh", "", "fresh")
client = Client(SERVER_NAME="localhost")
client.force_login(user)
for model in apps.get_app_config("graceful").get_models():
    if model in __import__("django.contrib.admin", fromlist=["site"]).site._registry:
        url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        status = client.get(url, follow=True).status_code
        assert status == 200, f"{url}: {status}"
        print("served", url)
static = Path(apps.get_app_config("graceful").path) / "static"
for file in static.rglob("*"):
    if file.is_file():
        assert finders.find(str(file.relative_to(static))), file
"""


def main(wheel: Path, checkout: Path) -> None:
    """Compare the wheel with the checkout, then use it as a new project would."""
    tracked = {
        str(path.relative_to(checkout))
        for path in (checkout / "graceful").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".po"
    }
    packed = set(zipfile.ZipFile(wheel).namelist())
    missing = sorted(tracked - packed)
    assert not missing, f"not in the wheel: {missing}"
    strangers = sorted(name for name in packed if not name.startswith(("graceful/", "django_rq_graceful-")))
    assert not strangers, f"in the wheel, but not ours: {strangers}"
    for kind in ("py.typed", "migrations/0001", "templates/", "static/", "locale/zh_Hans/LC_MESSAGES/django.mo"):
        assert any(name.startswith(f"graceful/{kind}") for name in packed), f"nothing of {kind} in the wheel"

    with tempfile.TemporaryDirectory() as directory:
        project = Path(directory)
        (project / "fresh_settings.py").write_text(SETTINGS)
        (project / "fresh_urls.py").write_text(URLS)

        def python(*arguments: str) -> None:
            print("$ python", arguments[0], *arguments[1:3] if arguments[0] == "-m" else (), flush=True)
            environment = {"DJANGO_SETTINGS_MODULE": "fresh_settings", "PYTHONPATH": directory, "PATH": "/usr/bin:/bin"}
            subprocess.run([sys.executable, *arguments], cwd=project, env=environment, check=True)

        python("-c", IMPORT_IS_LIGHT)
        python("-m", "django", "check", "--fail-level", "WARNING")
        python("-m", "django", "migrate", "--verbosity", "0")
        python("-m", "django", "makemigrations", "--check", "--dry-run")
        python("-m", "django", "runworker_graceful", "--help")
        python("-m", "django", "shutdown_report", "--help")
        python("-c", PAGES_ARE_SERVED)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
