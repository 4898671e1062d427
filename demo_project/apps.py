"""The demo as a Django app."""

from __future__ import annotations

from django.apps import AppConfig


class DemoConfig(AppConfig):
    name = "demo_project"
    verbose_name = "Demo: what Django's source is made of"
