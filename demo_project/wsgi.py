"""The web side: the exit hooks run at its end too."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

import graceful

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo_project.settings")
application = get_wsgi_application()
graceful.run_at_exit()
