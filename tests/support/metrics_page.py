"""The names, types and help texts of all metrics, as Prometheus reads them, for ``promtool check metrics``.

``python -m tests.support.metrics_page``
"""

from __future__ import annotations

import os
import sys

import django
from prometheus_client import CollectorRegistry, generate_latest


class _Described:
    """A collector that exports what another describes."""

    def collect(self) -> object:
        from graceful.metrics import GracefulCollector

        return GracefulCollector().describe()


def page() -> str:
    registry = CollectorRegistry()
    registry.register(_Described())  # type: ignore[arg-type]
    return generate_latest(registry).decode()


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    sys.stdout.write(page())
