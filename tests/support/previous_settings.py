"""The test settings for processes of the version before, whose URLs are not those of the tests."""

from __future__ import annotations

from tests.settings import *  # noqa: F403

ROOT_URLCONF = __name__
urlpatterns: list[object] = []
