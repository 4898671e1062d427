"""Puts our worker classes in RQ's place in every process that sets Django up: the test's, and a spawned horse's."""

import os
import sys

import rq.cli
import rq.worker
import rq.worker_pool
from django.apps import AppConfig


class CompatConfig(AppConfig):
    name = "compat_app"

    def ready(self) -> None:
        if os.environ["COMPAT_CLASSES"] == "graceful":
            put_ours_in_place()


def put_ours_in_place() -> None:
    """Replace every worker class that can be made graceful, under whatever name, in all of RQ's modules."""
    from graceful.worker import make_graceful

    ours = {
        candidate: make_graceful(candidate)
        for candidate in vars(rq.worker).values()
        if isinstance(candidate, type)
        and issubclass(candidate, rq.worker.BaseWorker)
        and candidate is not rq.worker.BaseWorker
    }
    for name, module in list(sys.modules.items()):
        if name == "rq" or name.startswith("rq."):
            for attribute, value in list(vars(module).items()):
                if isinstance(value, type) and value in ours:
                    setattr(module, attribute, ours[value])
