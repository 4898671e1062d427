"""Django's Tasks on RQ: ``TASKS = {"default": {"BACKEND": "graceful.tasks.RQBackend"}}``; see docs/tasks.md.

Needs Django 6, or Django 5.2 with the package ``django-tasks``. Nothing of it is imported unless ``TASKS`` names it.
"""

from __future__ import annotations

from graceful.tasks.backend import RQBackend

__all__ = ["RQBackend"]
