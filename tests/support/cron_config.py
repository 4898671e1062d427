"""A configuration of cron jobs."""

from __future__ import annotations

from rq import cron

from tests.support import jobs

cron.register(jobs.quick, "default", (1,), interval=1)
