"""Configuration of the ``rqcron`` beside the workers (``rqcron tests.chaos.cron``)."""

from __future__ import annotations

from rq import cron

from tests.chaos.jobs import napping

cron.register(napping, "default", args=(0.01,), interval=1, job_timeout=60)
